"""The sections on the time of a run, and on accuracy against seconds, bytes and joules."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sheaf.core.types import CLOUD
from sheaf.report.document import Section, Table
from sheaf.report.formatting import (
    format_bytes,
    format_count,
    format_duration,
    format_number_of,
    format_percent,
    join_names,
)
from sheaf.report.pictures.spending import Measured, draw_spending, measured_of, reached
from sheaf.report.pictures.timeline import draw_timeline
from sheaf.report.pictures.timelines import draw_timelines
from sheaf.report.time_finding import listed_times, time_finding
from sheaf.runtime.result import Result
from sheaf.runtime.time_record import SiteTime, Spent

HEADINGS = ("device", "profile", "computing", "receiving", "sending", "away", "waiting", "idle", "joules")


def time_section(result: Result) -> Section | None:
    """Return the section on the time of a run, if it was recorded."""
    record = result.time
    if record is None or not record.calls:
        return None
    rows = [time_cells(site, time) for site, time in listed_times(record).items()]
    hidden = len(record.sites) - len(rows)
    pictures = [draw_timeline(record)] if record.tasks else []
    curves = {
        label: points
        for label, site in (("cloud, all classes", CLOUD), ("edges, own classes", None))
        if (points := measured_of(result, site))
    }
    if curves:
        pictures.append(draw_spending(curves, "accuracy"))
    return Section(
        "time",
        "Seconds, bytes and joules",
        time_finding(record),
        pictures,
        [Table("Time and energy of each device", HEADINGS, rows, text_columns=2)],
        notes=[f"The table leaves out {format_number_of(hidden, 'device')}."] if hidden else [],
    )


def time_cells(site: str, time: SiteTime) -> tuple[str, ...]:
    """Return the cells of a site's row; see ``HEADINGS``."""
    return (
        site,
        time.profile or "-",
        *map(format_duration, (time.computing, time.receiving, time.sending, time.away, time.waiting)),
        format_percent(time.idle),
        "-" if time.joules is None else format_count(time.joules),
    )


def comparison_section(results: Mapping[str, Result]) -> Section | None:
    """Return the section that compares the time of runs, if they have records of it.

    Args:
        results: label -> the run.
    """
    what, curves = spending_curves(results)
    if not curves:
        return None
    common = min(max(point.accuracy for point in points) for points in curves.values())
    until = {label: reached(points, common) for label, points in curves.items()}
    order = sorted(until, key=lambda label: _seconds(until[label]))
    percent = f"{100 * common:.1f}\u00a0%"
    first = [f"{label} {format_duration(_seconds(until[label]))}" for label in order]
    rows = []
    timelines = {}
    for label in order:
        record, at = results[label].time, until[label]
        assert record is not None
        if record.tasks:
            timelines[label] = (record, _seconds(at))
        edges = [time.idle for site, time in record.sites.items() if site != CLOUD]
        cells = [_spent_cells(spent) for spent in (at, record.spent) if spent is not None]
        rows.append((label, *cells[0], *cells[-1], format_percent(sum(edges) / max(1, len(edges)))))
    headings = (*(f"{cost} to {percent}" for cost in COST_NAMES), *COST_NAMES, "idle")
    return Section(
        id="spending",
        title="Accuracy against seconds, bytes and joules",
        finding=f"Time to {percent} {what}, which every method reaches: {join_names(first)}.",
        pictures=[
            draw_spending(curves, what),
            *([draw_timelines(timelines, common)] if timelines else []),
        ],
        tables=[Table("Spent until that accuracy, and in the whole run", ("method", *headings), rows)],
        notes=[
            "Of each method, the first run. idle: the fraction of the run in which a device waits, the mean."
        ],
    )


COST_NAMES = ("seconds", "bytes", "joules")


def _seconds(spent: Spent | None) -> float:
    return math.inf if spent is None else spent.seconds


def _spent_cells(spent: Spent) -> tuple[str, str, str]:
    joules = "-" if spent.joules is None else format_count(spent.joules)
    return format_duration(spent.seconds), format_bytes(spent.bytes), joules


def spending_curves(results: Mapping[str, Result]) -> tuple[str, dict[str, list[Measured]]]:
    """Return whose accuracy is compared, and label -> the curve of each run that has a record of its time.

    It is that of the cloud's model if each of these runs has one, else the edges' mean.
    """
    timed = {label: result for label, result in results.items() if result.time is not None}
    of_cloud = {label: measured_of(result, CLOUD) for label, result in timed.items()}
    if timed and all(of_cloud.values()):
        return "accuracy of the cloud's model", of_cloud
    curves = {label: measured_of(result, None) for label, result in timed.items()}
    return "edges' mean accuracy", {label: points for label, points in curves.items() if points}
