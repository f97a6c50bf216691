"""Picture of accuracy against seconds, bytes and joules, for one run or several methods."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from sheaf.report.document import Picture
from sheaf.report.formatting import format_bytes, format_count, format_duration
from sheaf.report.style import COLOURS, DISTINCT, FAINT, MARKERS, new_figure, printable_name
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import Result
from sheaf.runtime.time_record import Spent

Cost = Callable[[Spent], float | None]

COSTS: Sequence[tuple[str, Cost, Callable[[float], str]]] = (
    ("seconds", lambda spent: spent.seconds, format_duration),
    ("bytes", lambda spent: spent.bytes, format_bytes),
    ("joules", lambda spent: spent.joules, lambda joules: f"{format_count(joules)} J"),
)
"""(name, value, text of the value)."""

SPACING = 0.09
"""Distance of a curve's markers, as a fraction of the diagonal of its axes."""

MAX_TARGETS = 60
"""Most points of a curve with a tooltip."""


@dataclass(frozen=True)
class Measured:
    """The accuracy of a run's models at a moment.

    Attributes:
        spent: what the run had spent before.
        accuracy: of the cloud's model on all classes, or the mean over the edges on their own classes.
    """

    spent: Spent
    accuracy: float


def measured_of(result: Result, site: str | None) -> list[Measured]:
    """Return the measurements of the cloud's model on all classes, or of the edges' means.

    Args:
        result: with a record of its time.
        site: the cloud's name; None: the edges.
    """
    if result.time is None:
        return []
    groups: dict[tuple[str, int], list[tuple[float, Spent]]] = {}
    for row, spent in zip(result.rows, result.time.measured, strict=False):
        if row.reference or (row.site == site) != (site is not None):
            continue
        accuracy = row.accuracy if site is None else row.accuracy_all
        if site is None and row.site not in result.split:
            continue
        if accuracy is not None:
            groups.setdefault((row.stage, row.round), []).append((accuracy, spent))
    return [
        Measured(group[0][1], statistics.mean(accuracy for accuracy, _ in group)) for group in groups.values()
    ]


def reached(points: Sequence[Measured], accuracy: float) -> Spent | None:
    """Return what a run had spent when it first reached an accuracy; None if it never did."""
    return next((point.spent for point in points if point.accuracy >= accuracy), None)


def draw_spending(curves: Mapping[str, Sequence[Measured]], what: str) -> Picture:
    """Draw accuracy against seconds, bytes and joules, with a step curve for each label.

    Args:
        curves: label -> its measurements in order.
        what: whose accuracy it is, for the axis.
    """
    every = [point for points in curves.values() for point in points]
    costs = [cost for cost in COSTS if all(cost[1](point.spent) is not None for point in every)]
    figure, panels = new_figure(2.9, 1, len(costs), sharey=True)
    for axes, (name, value_of, text_of) in zip(panels, costs, strict=True):
        for number, (label, points) in enumerate(curves.items()):
            values = [value_of(point.spent) or 0.0 for point in points]
            colour, marker = COLOURS[number % DISTINCT], MARKERS[number % len(MARKERS)]
            axes.plot(
                values, [point.accuracy for point in points], drawstyle="steps-post", color=colour,
                marker=marker, markersize=4, markevery=SPACING, clip_on=False,
                label=printable_name(label, 24),
            )  # fmt: skip
            for value, point in list(zip(values, points, strict=True))[:: max(1, len(points) // MAX_TARGETS)]:
                (target,) = axes.plot(value, point.accuracy, "o", markersize=10, alpha=0, clip_on=False)
                set_tooltip(target, f"{label}: {point.accuracy:.4f} after {text_of(value)}")
        values = sorted(value_of(point.spent) or 0.0 for point in every)
        if values[0] > 0 and values[-1] > 30 * values[0]:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(name)
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel(what)
    if len(curves) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), fontsize=8.5)
    numbers = "; ".join(
        f"{label} {points[-1].accuracy:.4f} after "
        + ", ".join(text_of(value_of(points[-1].spent) or 0.0) for _, value_of, text_of in costs)
        for label, points in curves.items()
    )
    return Picture(
        "spending",
        f"{what.capitalize()} against {', '.join(name for name, _, _ in costs)}: {numbers}.",
        "Accuracy that was reached by then. Bytes: of all messages, both ways. Joules: of all edges.",
        figure,
    )


def _tick(value: float) -> str:
    return format_count(value).replace(".0", "") if value >= 1 else f"{value:g}"
