"""The time of a run on the terminal: a table with a timeline in characters."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from sheaf.report.fitted_table import Column, FittedTable
from sheaf.report.formatting import format_count, format_duration, format_percent
from sheaf.report.time_finding import listed_times, time_finding
from sheaf.runtime.time_record import TaskTime, TimeRecord

WIDTH = 32
"""Characters of a timeline."""

SIGNS = {"computing": "█", "receiving": "▼", "sending": "▲", "away": "x", "waiting": "·"}
"""State -> its character; the state with the longest time in a character's interval is shown."""


def time_table(record: TimeRecord) -> Group:
    """Return the table of what each device did, and for how long."""
    table = FittedTable(
        [
            Column("device", right=False),
            Column("timeline", right=False),
            Column("computing", 2),
            Column("receiving", 4),
            Column("sending", 3),
            Column("idle", 1),
            Column("joules", 5),
            Column("profile", 6, right=False),
        ]
    )
    lines = timeline_characters(record)
    for site, time in listed_times(record).items():
        table.add_row(
            site,
            lines.get(site, SIGNS["waiting"] * WIDTH),
            *map(format_duration, (time.computing, time.receiving, time.sending)),
            format_percent(time.idle).replace("\u00a0", " "),
            "-" if time.joules is None else format_count(time.joules),
            time.profile,
        )
    signs = ", ".join(f"{sign} {state}" for state, sign in SIGNS.items())
    return Group(
        Text("Time of each device", style="bold"),
        table,
        Text(f"timeline: 0 to {format_duration(record.spent.seconds)}; {signs}", style="dim"),
        Text(time_finding(record).replace("\u00a0", " "), style="dim"),
        Text(),
    )


def timeline_characters(record: TimeRecord, begin: float = 0.0, width: int = WIDTH) -> dict[str, str]:
    """Return site -> its states, one character for each of ``width`` equal intervals of the run.

    Args:
        record: the time of the run.
        begin: the start of the first interval, in seconds; the last one ends with the run.
        width: number of intervals.
    """
    spans: dict[str, list[tuple[str, float, float]]] = {}
    for task in record.tasks:
        spans.setdefault(task.site, []).extend(_spans(task))
    for site, intervals in record.away.items():
        spans.setdefault(site, []).extend(("away", start, stop) for start, stop in intervals)
    interval = (record.spent.seconds - begin) / width
    return {site: _characters(own, begin, interval, width) for site, own in spans.items()}


def _characters(spans: list[tuple[str, float, float]], begin: float, interval: float, width: int) -> str:
    if interval <= 0:
        return SIGNS["waiting"] * width
    filled: list[dict[str, float]] = [{} for _ in range(width)]
    for state, start, stop in spans:
        first = max(0, int((start - begin) / interval))
        last = min(width - 1, int((stop - begin) / interval))
        for cell in range(first, last + 1):
            overlap = min(stop, begin + (cell + 1) * interval) - max(start, begin + cell * interval)
            if overlap > 0:
                filled[cell][state] = filled[cell].get(state, 0.0) + overlap
    return "".join(_sign(each, interval) for each in filled)


def _spans(task: TaskTime) -> list[tuple[str, float, float]]:
    received = task.start + task.download
    worked = received + task.work
    return [
        ("receiving", task.start, received),
        ("computing", received, worked),
        ("sending", worked, worked + task.upload),
    ]


def _sign(durations: dict[str, float], interval: float) -> str:
    waiting = interval - sum(durations.values())
    if not durations or waiting > max(durations.values()):
        return SIGNS["waiting"]
    return SIGNS[max(durations, key=lambda state: durations[state])]
