"""Picture of the timelines of several runs on one axis of time, until each reaches the same accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from sheaf.report.document import Picture
from sheaf.report.formatting import format_duration, format_number_of, format_percent, join_names
from sheaf.report.pictures.timeline import CRITICAL_PATH, MAX_TASKS, add_legend, draw_devices, unit_of_time
from sheaf.report.style import INK, new_figure, printable_name
from sheaf.runtime.time_record import TimeRecord

MAX_RUNS = 6
"""Most runs that are drawn; of more, the first ones."""


def draw_timelines(runs: Mapping[str, tuple[TimeRecord, float]], accuracy: float) -> Picture:
    """Draw a row for each recorded device in a panel for each run, and mark the critical paths.

    A panel ends when its run reaches the accuracy, at a dashed line. The axis ends soon after the second
    slowest run if the slowest one takes more than twice as long, so that the fast ones stay visible.

    Args:
        runs: label -> the time of its run, and the seconds until it reached the accuracy.
        accuracy: the accuracy, from 0 to 1.
    """
    drawn = dict(islice(runs.items(), MAX_RUNS))
    end = _end_of_axis([seconds for _, seconds in drawn.values()])
    unit, size = unit_of_time(end)
    heights = [0.16 * len({task.site for task in record.tasks}) + 1.0 for record, _ in drawn.values()]
    figure, panels = new_figure(sum(heights), len(drawn), 1, sharex=True, height_ratios=heights)
    truncated = []
    for axes, (label, (record, seconds)) in zip(panels, drawn.items(), strict=True):
        tasks = [task for task in record.tasks if task.start < min(seconds, end)]
        if len(tasks) > MAX_TASKS // len(drawn):
            tasks = tasks[: MAX_TASKS // len(drawn)]
            truncated.append(label)
        draw_devices(axes, _until(record, min(seconds, end)), tasks, size)
        name = printable_name(label, 40)
        axes.set_title(f"{name}: {format_percent(accuracy)} after {format_duration(seconds)}")
        if seconds < end:
            axes.axvline(seconds / size, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
    records = [record for record, _ in drawn.values()]
    panels[-1].set_xlabel(f"{'virtual ' * all(record.virtual for record in records)}time in {unit}")
    panels[-1].set_xlim(0, end / size)
    add_legend(figure, any(record.away for record in records))
    caption = [f"What each device does until the run reaches {format_percent(accuracy)}. {CRITICAL_PATH}"]
    if any(seconds > end for _, seconds in drawn.values()):
        caption.append("The slowest run is cut off at the end of the axis.")
    if len(runs) > len(drawn):
        caption.append(f"Of {format_number_of(len(runs), 'method')}, the first {len(drawn)} are drawn.")
    if truncated:
        most = f"{MAX_TASKS // len(drawn):,}"
        caption.append(f"Of {join_names(truncated, MAX_RUNS)}, only the first {most} tasks are drawn.")
    numbers = "; ".join(f"{label} {format_duration(seconds)}" for label, (_, seconds) in drawn.items())
    return Picture(
        "timelines",
        f"Timelines of the devices until {format_percent(accuracy)}: {numbers}.",
        " ".join(caption),
        figure,
    )


def _end_of_axis(seconds: Sequence[float]) -> float:
    *_, second, slowest = sorted((0.0, *seconds))
    return max(1.12 * second if slowest > 2 * second > 0 else 1.03 * slowest, 1e-9)


def _until(record: TimeRecord, end: float) -> TimeRecord:
    """Return the record with only those seconds of the devices' absence that lie before ``end``."""
    away = {
        site: [(start, min(stop, end)) for start, stop in intervals if start < end]
        for site, intervals in record.away.items()
    }
    return replace(record, away=away)
