"""Notes to the user that cached work has logged, so that each use of the cache shows them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("sheaf")


@contextmanager
def hold_notes() -> Iterator[list[str]]:
    """Yield a list that receives the messages of this thread's block instead of the log.

    They are collected at level INFO and above whatever the level of the logger is, so that a cache does not
    depend on it. If the block raises, they are logged.
    """
    notes: list[str] = []
    thread = threading.get_ident()

    def hold(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return record.levelno >= level
        notes.append(record.getMessage())
        return False

    own_level, level = logger.level, logger.getEffectiveLevel()
    logger.filters.insert(0, hold)  # before the filters of enclosing blocks
    logger.setLevel(min(level, logging.INFO))
    failed = True
    try:
        yield notes
        failed = False
    finally:
        logger.setLevel(own_level)
        logger.removeFilter(hold)
        if failed:
            log_notes(notes)


def log_notes(notes: list[str] | tuple[str, ...]) -> None:
    """Log each of ``notes``."""
    for note in notes:
        logger.info("%s", note)
