"""A progress bar on the terminal for operations that take longer than a moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DELAY = 2.0
"""Seconds before the bar appears."""


@contextlib.contextmanager
def bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield ``advance(steps)``, which moves the bar towards ``total``, or counts if that is None.

    The bar appears ``DELAY`` seconds after the start, at the next call of ``advance``, if stderr is a
    terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(description, total=total)
    started = time.monotonic()

    def advance(steps: int) -> None:
        progress.advance(task, steps)
        if not progress.live.is_started and time.monotonic() - started > DELAY:
            progress.start()

    try:
        yield advance
    finally:
        progress.stop()
