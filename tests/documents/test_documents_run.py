"""Every document does what it says: its files are written, its commands run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import command

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_runs(document: Path, tmp_path: Path) -> None:
    for kind, content in FENCE.findall(document.read_text(encoding="utf-8")):
        if kind == "sh":
            for line in content.splitlines():
                run(line, tmp_path)
        elif file := re.match(r"# file: (\S+)\n", content):
            (tmp_path / file[1]).write_text(content)
            assert content.count("\n") <= 32, f"{file[1]}: an example takes under 30 lines"


def run(line: str, folder: Path) -> None:
    if re.search("mnist|cifar", line) and "SHEAF_DATA" not in os.environ:
        return  # what needs a download is tried where the data is
    path = f"{Path(command()).parent}{os.pathsep}{os.environ['PATH']}"
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


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text(encoding="utf-8")):
            if document.name == "README.md" or target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_key_of_a_result_is_documented() -> None:
    from pydantic import TypeAdapter

    from sheaf.runtime.result import Result

    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    schema = TypeAdapter(Result).json_schema()
    for part in (schema, *schema["$defs"].values()):
        for key in part["properties"]:
            assert re.search(rf"[`.\]]{key}\b", text), f"docs/experiments.md does not say what {key} is"
