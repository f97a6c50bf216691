"""The time of a run on the terminal: a table with a timeline in characters."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from sheaf.report.fitted_table import Column, FittedTable
from sheaf.report.formatting import format_count, format_duration, format_percent
from sheaf.report.time_section import listed_times, time_finding
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
    for site, time in listed_times(record).items():
        table.add_row(
            site,
            timeline(record, site),
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


def timeline(record: TimeRecord, site: str, width: int = WIDTH) -> str:
    """Return the states of a site over the run, one character for each of ``width`` intervals."""
    end = record.spent.seconds
    if end <= 0:
        return SIGNS["waiting"] * width
    filled: list[dict[str, float]] = [{} for _ in range(width)]
    spans = [span for task in record.tasks if task.site == site for span in _spans(task)]
    spans += [("away", start, stop) for start, stop in record.away.get(site, [])]
    for state, start, stop in spans:
        first, last = int(start / end * width), min(width - 1, int(stop / end * width))
        for cell in range(first, last + 1):
            overlap = min(stop, (cell + 1) * end / width) - max(start, cell * end / width)
            if overlap > 0:
                filled[cell][state] = filled[cell].get(state, 0.0) + overlap
    return "".join(_sign(each, end / width) for each in filled)


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
