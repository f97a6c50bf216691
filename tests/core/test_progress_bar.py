"""The progress bar appears on terminals only, and only after a delay."""

import pytest

from sheaf.core import progress_bar


def test_nothing_is_printed_if_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar.bar("reading", 2) as advance:
        advance(2)
    assert capsys.readouterr().err == ""


def test_the_bar_appears_on_a_terminal_after_a_delay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for delay, visible in ((60.0, False), (0.0, True)):
        monkeypatch.setattr(progress_bar, "DELAY", delay)
        with progress_bar.bar("reading mnist", 2) as advance:
            advance(1)
        assert ("reading mnist" in capsys.readouterr().err) == visible


def test_the_description_is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_bar, "DELAY", 0.0)
    with progress_bar.bar("reading [/INST] :dog: {x}", 2) as advance:
        advance(1)
    assert "reading [/INST] :dog: {x}" in capsys.readouterr().err
