"""The timeline of a run that goes on, for the terminal: a line of characters for each device."""

from __future__ import annotations

import time

from sheaf.report.formatting import format_bytes, format_count, format_duration
from sheaf.report.terminal_timeline import SIGNS, timeline_characters
from sheaf.runtime.timeline import Timeline

PERIOD = 0.5
"""Least seconds between two drawings."""

LEGEND = ", ".join(f"{sign} {state}" for state, sign in SIGNS.items())
"""The meaning of the characters of a line."""

BUSY = 0.02
"""Greatest fraction of the run's real time that drawing takes."""


class LiveTimeline:
    """The lines and the seconds of a run's timeline so far; empty for a run without a timeline.

    Args:
        drawn: whether to draw the lines.
        width: characters of a line.

    Attributes:
        lines: device -> its line with the latest tasks, for at most 20 devices.
    """

    def __init__(self, drawn: bool, width: int = 32) -> None:
        self._drawn = drawn
        self._width = width
        self._next = 0.0  # when the lines may be drawn again
        self._name = ""
        self._spent = ""
        self._seconds = ""
        self._span = ""
        self.lines: dict[str, str] = {}

    def update(self, timeline: Timeline) -> None:
        """Take over the seconds, bytes and joules until now, and draw the lines if it is time to."""
        spent = timeline.spent()
        self._name = "virtual time" if timeline.virtual else "time"
        self._seconds = format_duration(spent.seconds)
        joules = "" if spent.joules is None else f", {format_count(spent.joules)} joules"
        self._spent = f"{self._seconds}, {format_bytes(spent.bytes)} of messages{joules}"
        start = time.monotonic()
        if self._drawn and start >= self._next:
            record = timeline.latest()
            first = min((task.start for task in record.tasks), default=0.0)
            self.lines = timeline_characters(record, first, self._width)
            self._span = f"{format_duration(first)} to {format_duration(record.spent.seconds)}"
            end = time.monotonic()
            self._next = end + max(PERIOD, (end - start) / BUSY)

    @property
    def title(self) -> str:
        """The seconds until now, to be appended to a title."""
        return f", {self._name} {self._seconds}" if self._name else ""

    @property
    def spent(self) -> str:
        """The seconds, bytes and joules until now, as a line."""
        return f"{self._name:<12} {self._spent}" if self._name else ""

    @property
    def heading(self) -> str:
        """The interval of the lines."""
        return self._span
