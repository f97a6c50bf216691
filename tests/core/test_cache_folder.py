"""The folder of the cache, by environment variables."""

from pathlib import Path

import pytest

from sheaf.core.cache_folder import cache_folder


def test_the_most_specific_variable_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SHEAF_CACHE")
    assert cache_folder() == tmp_path / "xdg/sheaf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home/.cache/sheaf"


def test_the_session_of_tests_has_its_own() -> None:
    assert Path.home() not in cache_folder().parents
