"""Picture of accuracy against cost, with the Pareto frontier."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sheaf.report.document import Picture
from sheaf.report.formatting import format_bytes, format_count, format_mean
from sheaf.report.intervals import deviation_bar
from sheaf.report.style import COLOURS, DISTINCT, FAINT, GREY, MARKERS, new_figure, printable_name
from sheaf.report.svg import set_tooltip


@dataclass(frozen=True)
class Point:
    """A method's accuracy and cost.

    Attributes:
        label: the method.
        bytes: sent by all sites, mean over the seeds.
        macs: multiply-adds of all training, mean over the seeds.
        accuracies: one for each seed.
    """

    label: str
    bytes: float
    macs: float
    accuracies: Sequence[float]

    @property
    def accuracy(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.accuracies)


Cost = Callable[[Point], float]


def pareto_frontier(points: Sequence[Point], cost: Cost) -> list[Point]:
    """Return the points that no other point dominates in accuracy and cost, the cheapest first."""
    ordered = sorted(points, key=lambda point: (cost(point), -point.accuracy))
    frontier: list[Point] = []
    for point in ordered:
        if not frontier or point.accuracy > frontier[-1].accuracy:
            frontier.append(point)
    return frontier


def draw_frontier(panels: Mapping[str, Sequence[Point]]) -> Picture:
    """Draw accuracy against traffic in bytes (left) and multiply-adds (right).

    Args:
        panels: title -> points; each entry is a row of two panels.
    """
    costs: Sequence[tuple[str, Cost, Callable[[float], str]]] = (
        ("traffic, both directions", lambda point: point.bytes, format_bytes),
        ("multiply-adds of all training", lambda point: point.macs, format_count),
    )
    labels = list(dict.fromkeys(point.label for points in panels.values() for point in points))
    figure, axes = new_figure(2.75 * len(panels) + 0.5, len(panels), 2, sharey="row")
    for row, (title, points) in enumerate(panels.items()):
        for column, (axis_label, cost, text_of) in enumerate(costs):
            panel = axes[2 * row + column]
            _panel(panel, points, labels, cost, text_of)
            panel.set_xlabel(axis_label)
            if column == 0:
                panel.set_ylabel("accuracy")
                panel.set_title(title)
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[n % DISTINCT], color=COLOURS[n % DISTINCT], markersize=8,
               label=printable_name(label, 32))
        for n, label in enumerate(labels)
    ]  # fmt: skip
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), label="frontier"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=min(len(handles), 6 if len(labels[0]) < 12 else 3)
    )
    numbers = "; ".join(
        f"{title}: "
        + ", ".join(
            f"{p.label} {p.accuracy:.4f} for {format_bytes(p.bytes)} and {format_count(p.macs)}"
            for p in points
        )
        for title, points in panels.items()
    )
    return Picture(
        "frontier",
        f"Accuracy against traffic and against multiply-adds. {numbers}.",
        "Higher is better, further left is cheaper. The dashed line is the Pareto frontier: each method "
        "below it has a better or cheaper alternative. Vertical bars: ± standard deviation over the seeds.",
        figure,
    )


def _panel(
    axes: Axes, points: Sequence[Point], labels: Sequence[str], cost: Cost, text_of: Callable[[float], str]
) -> None:
    for point in points:
        n = labels.index(point.label)
        bar = axes.errorbar(
            cost(point), point.accuracy, yerr=deviation_bar(point.accuracies), fmt=MARKERS[n % DISTINCT],
            color=COLOURS[n % DISTINCT], markersize=8, capsize=3, zorder=3, clip_on=False,
        )  # fmt: skip
        set_tooltip(bar, f"{point.label}: {format_mean(point.accuracies)} for {text_of(cost(point))}")
    frontier = pareto_frontier(points, cost)
    costs = [cost(point) for point in points]
    if min(costs) > 0 and max(costs) > 5 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
        end = max(costs) * 1.6
    else:
        pad = 0.12 * (max(costs) - min(costs)) or 0.1 * max(costs) or 1
        end = max(costs) + pad
        axes.set_xlim(max(min(costs) - pad, -0.02 * end), end)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.step(
        [*(cost(point) for point in frontier), end],
        [*(point.accuracy for point in frontier), frontier[-1].accuracy],
        where="post", color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2,
    )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text_of(value).replace(".0", "")))
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 1))
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
