"""The log messages of a block of code, for a handler or a list."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("sheaf")


@contextmanager
def collect_logs() -> Iterator[list[str]]:
    """Yield a list that receives the messages logged inside the block."""
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    with logging_to(handler):
        yield notes


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Send the log messages of sheaf to ``handler`` inside the block, then close it."""
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
