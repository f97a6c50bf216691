"""The progress of a run in a notebook: one line with a bar below the cell, and a summary at the end."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sheaf.report.activities import ACTIVITY
from sheaf.report.live import Live
from sheaf.report.live_timeline import LiveTimeline
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.timeline import Timeline

INTERVAL = 0.25
"""Seconds between two updates of the line."""


def notebook_shell() -> Any:
    """Return the IPython shell of a notebook; None in scripts and on terminals."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell if hasattr(shell, "kernel") else None


def make_observer(
    progress: bool | None, title: str, folder: Path, rows: bool = True, line: list[Any] | None = None
) -> Observer:
    """Return the observer that shows a run's progress.

    Args:
        progress: True shows it, False does not; None shows it in a notebook and on a terminal.
        title: its first line.
        folder: the run's folder, for the hint on resuming.
        rows: whether a terminal also gets a line for each measurement.
        line: shared by runs that follow each other; in a notebook they use the same line.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    if progress is False:
        return NullObserver()
    if notebook_shell() is not None:
        return NotebookProgress(title, folder, line)
    return Live(console, title, rows) if progress or console.is_terminal else NullObserver()


class NotebookProgress(NullObserver):
    """An observer that updates one line of HTML.

    Args:
        title: the line's beginning.
        folder: the run's folder.
        line: the display of the line, once there is one; see ``make_observer``.
    """

    def __init__(self, title: str, folder: Path, line: list[Any] | None = None) -> None:
        self._title = title
        self._folder = folder
        self._display = importlib.import_module("IPython.display")
        self._notes: list[str] = []
        self._steps: dict[str, tuple[int, int]] = {}  # site -> (done, in total)
        self._sites = 1  # of the call
        self._activity = "starting"
        self._timeline = LiveTimeline(drawn=False)
        self._line = [] if line is None else line
        self._began = self._updated = time.monotonic()

    def __enter__(self) -> NotebookProgress:
        if self._line:
            self._update()
        else:
            self._line.append(self._display.display(self._html(), display_id=True))
        return self

    def __exit__(self, *error: object) -> None:
        stopped = bool(error and error[0])
        hint = f"stopped; continue with sheaf.resume({str(self._folder)!r})" if stopped else "done"
        self._activity, self._steps = f"{hint}, {time.monotonic() - self._began:.0f} s", {}
        self._update()

    def note(self, text: str) -> None:
        """Show the note above the line."""
        self._notes.append(text)
        self._update()

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Show the activity."""
        of = sites[0] if len(sites) == 1 else f"{len(sites):,} sites"
        self._activity = f"{ACTIVITY.get(kind, kind)} {of}"
        self._steps, self._sites = {}, max(1, len(sites))
        self._update_at_times()

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Move the bar."""
        self._steps[site] = done, steps
        self._update_at_times()

    def timed(self, timeline: Timeline) -> None:
        """Show the run's time."""
        self._timeline.update(timeline)
        self._update_at_times()

    def _update_at_times(self) -> None:
        if time.monotonic() - self._updated > INTERVAL:
            self._update()

    def _update(self) -> None:
        self._updated = time.monotonic()
        for handle in self._line:
            handle.update(self._html())

    def _html(self) -> Any:
        lines = [f"<div>note: {html.escape(note)}</div>" for note in self._notes]
        bar = ""
        if self._steps:
            fraction = sum(done / max(steps, 1) for done, steps in self._steps.values()) / self._sites
            bar = f' <progress value="{fraction:.3f}" max="1"></progress> {fraction:.0%}'
        activity = html.escape(self._activity + self._timeline.title)
        lines.append(f"<div>{html.escape(self._title)}: {activity}{bar}</div>")
        return self._display.HTML("".join(lines))
