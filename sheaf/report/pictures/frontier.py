"""Accuracy against what it costs; a line joins what nothing beats in both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sheaf.report.document import Picture
from sheaf.report.intervals import half_interval
from sheaf.report.style import COLOURS, DISTINCT, FAINT, GREY, MARKERS, drawable, sheet
from sheaf.report.tables import count, size


@dataclass(frozen=True)
class Point:
    """A method: bytes sent and multiply-adds (means over its seeds), accuracy for each seed."""

    label: str
    bytes: float
    macs: float
    accuracies: Sequence[float]

    @property
    def accuracy(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.accuracies)


Price = Callable[[Point], float]


def on_the_frontier(points: Sequence[Point], price: Price) -> list[Point]:
    """Those for which no other is as good and cheaper, or as cheap and better; the cheapest first."""
    ordered = sorted(points, key=lambda point: (price(point), -point.accuracy))
    kept: list[Point] = []
    for point in ordered:
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def frontier(panels: Mapping[str, Sequence[Point]]) -> Picture:
    """A row for each way to measure accuracy; bytes on the left, multiply-adds on the right."""
    prices: Sequence[tuple[str, Price, Callable[[float], str]]] = (
        ("bytes sent, all sites", lambda point: point.bytes, size),
        ("multiply-adds of all training", lambda point: point.macs, count),
    )
    labels = list(dict.fromkeys(point.label for points in panels.values() for point in points))
    figure, axes = sheet(2.75 * len(panels) + 0.5, len(panels), 2, sharey="row")
    for row, (title, points) in enumerate(panels.items()):
        for column, (what, price, written) in enumerate(prices):
            here = axes[2 * row + column]
            _panel(here, points, labels, price, written)
            here.set_xlabel(what)
            if column == 0:
                here.set_ylabel("accuracy")
                here.set_title(title)
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[n % DISTINCT], color=COLOURS[n % DISTINCT], markersize=8,
               label=drawable(label, 32))
        for n, label in enumerate(labels)
    ]  # fmt: skip
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), label="frontier"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=min(len(handles), 6 if len(labels[0]) < 12 else 3)
    )
    told = "; ".join(
        f"{title}: "
        + ", ".join(f"{p.label} {p.accuracy:.4f} for {size(p.bytes)} and {count(p.macs)}" for p in points)
        for title, points in panels.items()
    )
    return Picture(
        "frontier",
        f"Accuracy against bytes sent and against multiply-adds. {told}.",
        "Higher is better, further left is cheaper. The dashed line joins the methods that no other beats in "
        "both; below it, another is as good for less. Upright lines: 95 % intervals over the seeds.",
        figure,
    )


def _panel(
    axes: Axes, points: Sequence[Point], labels: Sequence[str], price: Price, written: Callable[[float], str]
) -> None:
    for point in points:
        n = labels.index(point.label)
        axes.errorbar(
            price(point), point.accuracy, yerr=half_interval(point.accuracies), fmt=MARKERS[n % DISTINCT],
            color=COLOURS[n % DISTINCT], markersize=8, capsize=3, zorder=3,
        )  # fmt: skip
    best = on_the_frontier(points, price)
    prices = [price(point) for point in points]
    if min(prices) > 0 and max(prices) > 5 * min(prices):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(prices) / 1.6, max(prices) * 1.6)
        end = max(prices) * 1.6
    else:
        pad = 0.12 * (max(prices) - min(prices)) or 0.1 * max(prices) or 1
        end = max(prices) + pad
        axes.set_xlim(max(min(prices) - pad, -0.02 * end), end)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.step(
        [*(price(point) for point in best), end], [*(point.accuracy for point in best), best[-1].accuracy],
        where="post", color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2,
    )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
