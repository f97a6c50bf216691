"""``sheaf cache ls`` and ``sheaf cache rm``."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from sheaf.cli import main
from sheaf.core.cache_folder import checks_folder
from sheaf.data.example_cache import PARTIAL, entries, examples_folder
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings


@pytest.fixture(autouse=True)
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two datasets, which are in the cache; one was last used two days ago."""
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, size in (("[photos]", 40), ("drawings", 30)):
        for number in range(8):
            path = tmp_path / name / str(number % 2) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (size, size), number).save(path)
        load_dataset(DataSettings(name=name), tmp_path)
    os.utime(entries()[1].folder / "card.json", (time.time() - 200_000,) * 2)
    return tmp_path


def sheaf(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sheaf", "cache", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    return int(exit_.value.code or 0)


def test_entries_are_listed_and_removed(
    filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sheaf("ls", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert re.search(r"drawings +5 \+ 3 +1x30x30 +0.0 +\d+ seconds? ago", printed)
    assert re.search(r"\[photos\] +5 \+ 3 +1x40x40 +0.0 +2 days ago", printed)
    assert f"2 datasets, 0.0 MB in {filled / 'cache/examples'}" in printed
    assert sheaf("rm", "[photos]", monkeypatch=monkeypatch) == 0
    assert "removed 1 dataset, 0.0 MB" in capsys.readouterr().out
    assert [entry.name for entry in entries()] == ["drawings"]
    assert sheaf("rm", str(filled / "drawings"), monkeypatch=monkeypatch) == 0
    assert entries() == []
    capsys.readouterr()
    assert sheaf("ls", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("0 datasets")


def test_all_includes_damaged_entries_and_those_of_killed_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (entries()[0].folder / "card.json").write_text("[]")
    (examples_folder() / f"{PARTIAL}1").mkdir()
    checks_folder().mkdir()
    assert sheaf("rm", "--all", monkeypatch=monkeypatch) == 0
    assert list(examples_folder().iterdir()) == []
    assert not checks_folder().exists()


@pytest.mark.parametrize("arguments", [(), ("mnist", "--all"), ("unknown",)])
def test_wrong_arguments_are_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sheaf("rm", *arguments, monkeypatch=monkeypatch) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "sheaf cache" in message
    assert len(entries()) == 2
