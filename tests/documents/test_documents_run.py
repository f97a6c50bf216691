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
INSTALLED = "quickstart.md"
"""The document whose commands are the installed programs; the others' run in forks of one server."""


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
    programs = Path(command()).parent if document.name == INSTALLED else fork_server
    for kind, content in blocks(document):
        if kind == "sh":
            for line in content.splitlines():
                if not NEEDS_DATA.search(line):
                    run(line, tmp_path, programs)
        elif file := re.match(r"# file: (\S+)\n", content):
            (tmp_path / file[1]).write_text(content)
            assert content.count("\n") <= 32, f"{file[1]}: an example takes under 30 lines"


@pytest.mark.parametrize("document", list(filter(needs_data, DOCUMENTS)), ids=lambda path: path.name)
def test_runs_on_real_data(document: Path, tmp_path: Path, fork_server: Path) -> None:
    data_root()  # skips the test where there is none
    for line in filter(NEEDS_DATA.search, commands(document)):
        run(line, tmp_path, fork_server)


def run(line: str, folder: Path, programs: Path) -> None:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert all(len(shown) <= 100 for shown in done.stdout.splitlines())


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
