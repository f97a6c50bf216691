"""Every file and folder of the project that a document names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = [path.name for path in (ROOT / "sheaf").iterdir() if path.is_dir()]
PATH = re.compile(rf"`((?:sheaf|tests|tools|benchmarks|{'|'.join(PACKAGES)})/[\w./-]*)`")
LINK = re.compile(r"\]\((?!http)([^)#]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_paths_exist(document: Path) -> None:
    for path in PATH.findall(document.read_text(encoding="utf-8")):
        pattern = path.replace("NAME", "[!_]*").rstrip("/")
        folder = ROOT / "sheaf" if path.split("/")[0] in PACKAGES else ROOT
        assert list(folder.glob(pattern)), f"{document.name} names {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"
