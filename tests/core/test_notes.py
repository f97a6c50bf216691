"""Notes of cached work: held back at any level, shown again, and logged on an error."""

import logging
import threading

import pytest

from sheaf.core.notes import hold_notes, log_notes

logger = logging.getLogger("sheaf")


def test_notes_are_held_back_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "sheaf")
    with hold_notes() as notes:
        logger.info("%d files are left out", 3)
        logger.warning("one is large")
    assert notes == ["3 files are left out", "one is large"]
    assert not caplog.text
    assert logger.level == logging.WARNING
    caplog.set_level("INFO", "sheaf")
    log_notes(notes)
    assert caplog.messages == notes


def test_notes_are_logged_if_the_work_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sheaf")

    def fail() -> None:
        logger.info("val is the test split")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), hold_notes():
        fail()
    assert caplog.messages == ["val is the test split"]


def test_the_messages_of_another_thread_pass(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "sheaf")

    def other() -> None:
        logger.info("below the level")
        logger.warning("lost an edge")

    with hold_notes() as notes:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert notes == []
    assert caplog.messages == ["lost an edge"]
