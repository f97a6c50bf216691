"""The bar shows to people who wait, and to no one else."""

import pytest

from sheaf.core import progress_bar


def test_nothing_is_printed_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar.bar("reading", 2) as advance:
        advance(2)
    assert capsys.readouterr().err == ""


def test_a_terminal_sees_it_after_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for patience, seen in ((60.0, False), (0.0, True)):
        monkeypatch.setattr(progress_bar, "PATIENCE", patience)
        with progress_bar.bar("reading mnist", 2) as advance:
            advance(1)
        assert ("reading mnist" in capsys.readouterr().err) == seen
