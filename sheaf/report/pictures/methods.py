"""Picture of the accuracies of several methods: means with standard deviations, and each seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.lines import Line2D

from sheaf.report.document import Picture
from sheaf.report.formatting import format_mean
from sheaf.report.intervals import deviation_bar
from sheaf.report.style import (
    BLUE,
    FAINT,
    GREEN,
    MARKERS,
    VERMILLION,
    new_figure,
    printable_name,
    set_accuracy_axis,
)
from sheaf.report.svg import set_tooltip

STYLES = ((BLUE, MARKERS[0]), (VERMILLION, MARKERS[4]), (GREEN, MARKERS[2]))


def draw_methods(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> Picture:
    """Draw the accuracies of each method.

    Args:
        scores: method -> kind of accuracy -> a value for each seed.
    """
    figure, (axes,) = new_figure(0.52 * len(scores) + 1.1)
    kinds = list(next(iter(scores.values())))
    shown: list[float] = []
    for y, (label, by_kind) in enumerate(scores.items()):
        for n, (kind, values) in enumerate(by_kind.items()):
            if not values:
                continue
            colour, marker = STYLES[n]
            at = y + 0.24 * (n - 1)
            axes.plot(
                values, [at] * len(values), linestyle="", marker="|", markersize=7, color=colour, alpha=0.6,
                clip_on=False,
            )  # fmt: skip
            mean, ((below,), (above,)) = statistics.mean(values), deviation_bar(values)
            bar = axes.errorbar(
                mean, at, xerr=[[below], [above]], fmt=marker, color=colour, markersize=7, capsize=3,
                clip_on=False,
            )  # fmt: skip
            set_tooltip(bar, f"{label}, {kind}: {format_mean(values)}")
            shown += [*values, mean - below, mean + above]
        if y:
            axes.axhline(y - 0.5, color=FAINT, linewidth=0.6)
    set_accuracy_axis(axes, shown)
    axes.set_yticks(range(len(scores)), [printable_name(label, 32) for label in scores])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_xlabel("accuracy")
    axes.set_axisbelow(True)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=7, linestyle="-", label=kind)
        for kind, (colour, marker) in zip(kinds, STYLES, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    numbers = "; ".join(
        f"{label}: " + ", ".join(f"{k} {statistics.mean(v):.4f}" for k, v in by_kind.items() if v)
        for label, by_kind in scores.items()
    )
    return Picture(
        "methods",
        f"Accuracy of each method. {numbers}.",
        "Markers: means over the seeds. Bars: ± standard deviation. Strokes: single seeds. Edges are "
        "measured on their own classes, the cloud's model on all.",
        figure,
    )
