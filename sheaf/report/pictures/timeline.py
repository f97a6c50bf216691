"""Picture of the time of a run: what each device does, and which one the cloud waits for."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sheaf.core.types import CLOUD
from sheaf.report.document import Picture
from sheaf.report.formatting import format_duration, format_percent
from sheaf.report.style import BLUE, FAINT, GREEN, INK, ORANGE, PAPER, VERMILLION, new_figure, printable_name
from sheaf.report.svg import set_tooltip
from sheaf.runtime.time_record import TaskTime, TimeRecord

STATES = (("receiving", GREEN), ("computing", BLUE), ("sending", ORANGE))
"""(state, colour), in the order of a task."""

VISIBLE = 0.002
"""Least fraction of the drawn time for which the critical path follows a call."""

MAX_TASKS = 3000
"""Most tasks in a picture; of a longer record, the first ones."""

CRITICAL_PATH = "The critical path goes through the site that the cloud waited for last in each call."


def draw_timeline(record: TimeRecord) -> Picture:
    """Draw a row for each recorded device, the cloud last, and mark the critical path.

    The critical path goes through the site that the cloud waited for last in each call.
    """
    unit, seconds_of_unit = unit_of_time(record.spent.seconds)
    tasks = record.tasks[:MAX_TASKS]
    figure, (axes,) = new_figure(0.3 * len({task.site for task in record.tasks}) + 1.1)
    sites = draw_devices(axes, record, tasks, seconds_of_unit)
    is_whole = not tasks or tasks[0].call == 1
    start = 0.0 if is_whole else min(task.start for task in tasks)
    end = max((task.start + task.download + task.work + task.upload for task in tasks), default=1.0)
    axes.set_xlim(start / seconds_of_unit, max(end, start + 1e-9) / seconds_of_unit)
    axes.set_xlabel(f"{'virtual ' * record.virtual}time in {unit}")
    add_legend(figure, bool(record.away))
    numbers = "; ".join(
        f"{site}: computing {format_duration(time.computing)}, receiving {format_duration(time.receiving)}, "
        f"sending {format_duration(time.sending)}, waiting {format_percent(time.idle)} of the run"
        for site in sites
        if (time := record.sites.get(site)) is not None
    )
    cut = f" Only the first {MAX_TASKS:,} tasks are drawn." if len(record.tasks) > MAX_TASKS else ""
    few = " Of many devices, those from the slowest to the fastest in equal steps are drawn."
    return Picture(
        "timeline",
        f"Timeline of the devices over {format_duration(record.spent.seconds)}. {numbers}.",
        f"What each device does. {CRITICAL_PATH} Only a shorter task on it makes the run shorter.{cut}"
        + few * (len(record.sites) > len(sites) + 1),
        figure,
    )


def draw_devices(
    axes: Axes, record: TimeRecord, tasks: Sequence[TaskTime], unit: float = 1.0
) -> Sequence[str]:
    """Draw a row for each recorded device, the cloud last, with the critical path; return the devices.

    Args:
        axes: the axes.
        record: the time of the run.
        tasks: those to be drawn.
        unit: seconds of a unit of the axis.
    """
    sites = sorted(dict.fromkeys(task.site for task in record.tasks), key=lambda site: site == CLOUD)
    for row, site in enumerate(sites):
        own = [task for task in tasks if task.site == site]
        away = [(start, end - start) for start, end in record.away.get(site, [])]
        _bars(axes, row, "away", FAINT, away, unit, hatch="////")
        for number, (state, colour) in enumerate(STATES):
            _bars(axes, row, state, colour, [_steps(task)[number] for task in own], unit)
    _critical_path(axes, record, sites, tasks, unit)
    axes.set_yticks(range(len(sites)), [_label(record, site) for site in sites])
    axes.set_ylim(len(sites) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    return sites


def add_legend(figure: Figure, away: bool) -> None:
    """Add the legend of the states, with or without ``away``."""
    handles: list[Artist] = [Patch(color=colour, label=state) for state, colour in STATES]
    handles.append(Patch(facecolor=PAPER, edgecolor=FAINT, label="waiting"))
    if away:
        handles.append(Patch(facecolor=PAPER, edgecolor=FAINT, hatch="////", label="away"))
    handles.append(Line2D([], [], color=VERMILLION, linewidth=1.6, label="critical path"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), fontsize=8.5, handlelength=1.2,
        columnspacing=1.1,
    )  # fmt: skip


def _steps(task: TaskTime) -> tuple[tuple[float, float], ...]:
    """Return (start, duration) of each of ``STATES``."""
    received = task.start + task.download
    worked = received + task.work
    return (task.start, task.download), (received, task.work), (worked, task.upload)


def unit_of_time(seconds: float) -> tuple[str, float]:
    """Return a unit of time for an axis, and its seconds."""
    for name, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 3 * size:
            return name, size
    return ("seconds", 1.0) if seconds >= 1 else ("milliseconds", 1e-3)


def _label(record: TimeRecord, site: str) -> str:
    profile = record.sites[site].profile if site in record.sites else ""
    return printable_name(f"{site}: {profile}" if profile else site, 34)


def _bars(
    axes: Axes,
    row: int,
    state: str,
    colour: str,
    intervals: Sequence[tuple[float, float]],
    unit: float,
    hatch: str = "",
) -> None:
    spans = [(start / unit, duration / unit) for start, duration in intervals if duration > 0]
    if spans:
        face = PAPER if hatch else colour
        bars = axes.broken_barh(
            spans, (row - 0.32, 0.64), facecolor=face, edgecolor=colour, linewidth=0.5, hatch=hatch
        )
        total = sum(duration for _, duration in intervals)
        set_tooltip(bars, f"{state}: {format_duration(total)}")


def _critical_path(
    axes: Axes, record: TimeRecord, sites: Sequence[str], tasks: Sequence[TaskTime], unit: float
) -> None:
    """Draw a line below the bar of the last site of each call."""
    drawn = {task.call for task in tasks}
    calls = [call for call in record.calls if call.call in drawn]
    least = VISIBLE * (max(call.end for call in calls) - calls[0].start) if calls else 0.0
    times, rows = [], []
    for call in calls:
        if call.last in sites and call.end - call.start > least:
            row = sites.index(call.last) + 0.4
            times += [call.start / unit, call.end / unit]
            rows += [row, row]
    axes.plot(times, rows, color=VERMILLION, linewidth=1.6, solid_joinstyle="miter", zorder=3)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", colors=INK)
