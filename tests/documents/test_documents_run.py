"""Every document does what it says: its files are written, its commands run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import command, data_root

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
NEEDS_DATA = re.compile("mnist|cifar")
LITERAL = "quickstart.md"
"""The document whose commands are the installed programs, as they stand. The commands of the others run in
forks of one server, and on fewer digits."""
ON_DIGITS = re.compile("^(sheaf (?:run|compare|plan|cloud rehearse) ecavg-digits)")
FEWER = r"\1 --set data.limit=200 --set data.limit_test=100"


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """The kind and the content of every fenced block."""
    yield from FENCE.findall(document.read_text(encoding="utf-8"))


def commands(document: Path) -> list[str]:
    return [line for kind, content in blocks(document) if kind == "sh" for line in content.splitlines()]


def needs_data(document: Path) -> bool:
    return any(map(NEEDS_DATA.search, commands(document)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_runs(document: Path, tmp_path: Path, fork_server: Path) -> None:
    """All but the commands on data that is downloaded, which the next test runs."""
    literal = document.name == LITERAL
    programs = Path(command()).parent if literal else fork_server
    folders = tuple(f" --out {line.split()[-1]}" for line in shown(document))  # whose figures are compared
    for kind, content in blocks(document):
        if kind == "sh":
            for line in content.splitlines():
                if not NEEDS_DATA.search(line):
                    whole = literal or line.endswith(folders)
                    run(line if whole else ON_DIGITS.sub(FEWER, line), tmp_path, programs)
        elif file := re.match(r"# file: (\S+)\n", content):
            (tmp_path / file[1]).write_text(content)
            assert content.count("\n") <= 32, f"{file[1]}: an example takes under 30 lines"
    assert_shown(document, tmp_path, programs)


@pytest.mark.parametrize("document", list(filter(needs_data, DOCUMENTS)), ids=lambda path: path.name)
def test_runs_on_real_data(document: Path, tmp_path: Path, fork_server: Path) -> None:
    data_root()  # skips the test where there is none
    for line in filter(NEEDS_DATA.search, commands(document)):
        run(line, tmp_path, fork_server)


def run(line: str, folder: Path, programs: Path) -> str:
    """Run a line of a document and return its output."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert all(len(printed) <= 100 for printed in done.stdout.splitlines())
    return done.stdout


SHOWN = re.compile(r"^<!-- output: ([^\n]+) -->\n```text\n(.*?)^```", re.M | re.S)
"""A block that shows a command's output, or a part of it."""
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
TIME = re.compile(r"\d+\.\d s\b|^\s*\d+\.\d s\.$")


def shown(document: Path) -> dict[str, list[str]]:
    """Return command -> the blocks that show its output."""
    found: dict[str, list[str]] = {}
    for line, block in SHOWN.findall(document.read_text(encoding="utf-8")):
        found.setdefault(line, []).append(block)
    return found


def assert_shown(document: Path, folder: Path, programs: Path) -> None:
    """Check the blocks that show output, after the document's commands have run in ``folder``.

    Processors round differently: figures may differ by two hundredths or two points, and times at will.
    """
    for line, parts in shown(document).items():
        printed = [each.rstrip() for each in run(line, folder, programs).splitlines()]
        for text in "".join(parts).splitlines():
            assert any(is_alike(text, each) for each in printed), f"{document.name}: {line}: {text}"


def is_alike(shown: str, printed: str) -> bool:
    """Return whether two lines differ only by times and by small differences of their numbers."""
    shown, printed = TIME.sub("TIME", shown), TIME.sub("TIME", printed)
    if NUMBER.sub("N", shown).split() != NUMBER.sub("N", printed).split():
        return False
    for one, other in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        a, b = (float(number.replace(",", "")) for number in (one, other))
        limit = 0 if "." not in one else 0.02 if max(a, b) <= 1 else 2.0
        if abs(a - b) > limit + 1e-9:
            return False
    return True


def test_your_own_takes_under_ten_lines() -> None:
    text = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
    files = [content for _, content in FENCE.findall(text) if content.startswith("# file: ")]
    assert len(files) == 3
    for content in files:
        code = [line for line in content.splitlines() if line.strip() and not line.startswith("#")]
        assert len(code) < 10, content


def test_every_key_of_a_result_is_documented() -> None:
    from pydantic import TypeAdapter

    from sheaf.runtime.result import Result

    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    schema = TypeAdapter(Result).json_schema()
    for part in (schema, *schema["$defs"].values()):
        for key in part["properties"]:
            assert re.search(rf"[`.\]]{key}\b", text), f"docs/experiments.md does not say what {key} is"
