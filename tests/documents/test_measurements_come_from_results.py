"""The tables in docs/measurements.md are those of the committed result files."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_page_is_what_the_result_files_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks.document import DOCUMENT, document

    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m benchmarks.document"
