"""Picture of our accuracies and a paper's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.lines import Line2D

from sheaf.report.document import Picture
from sheaf.report.formatting import format_mean
from sheaf.report.intervals import deviation_bar
from sheaf.report.stages import stage_label
from sheaf.report.style import BLUE, FAINT, GREY, VERMILLION, new_figure, set_accuracy_axis
from sheaf.report.svg import set_tooltip


def draw_paper(
    ours: Mapping[tuple[str, str], Sequence[float]], theirs: Mapping[tuple[str, str], float]
) -> Picture:
    """Draw a row for each device and stage.

    Args:
        ours: (device, stage) -> our accuracy for each seed.
        theirs: (device, stage) -> the paper's accuracy.
    """
    figure, (axes,) = new_figure(0.34 * len(ours) + 1.0)
    for y, (key, values) in enumerate(ours.items()):
        mean, name = statistics.mean(values), f"{key[0]}, {stage_label(key[1])}"
        axes.plot([theirs[key], mean], [y, y], color=GREY, linewidth=0.9, zorder=1)
        (paper,) = axes.plot(
            theirs[key], y, marker="D", color=VERMILLION, markerfacecolor="white", markersize=7,
            markeredgewidth=1.5, clip_on=False,
        )  # fmt: skip
        bar = axes.errorbar(
            mean, y, xerr=deviation_bar(values), fmt="o", color=BLUE, markersize=7, capsize=3, clip_on=False
        )
        set_tooltip(paper, f"{name}: the paper {theirs[key]:.4f}")
        set_tooltip(bar, f"{name}: ours {format_mean(values)}")
    shown = [value for values in ours.values() for value in values] + list(theirs.values())
    set_accuracy_axis(axes, shown)
    axes.set_yticks(range(len(ours)), [f"{site}, {stage_label(stage)}" for site, stage in ours])
    axes.set_ylim(len(ours) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy on the device's own classes (cloud: all classes)")
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    handles = [
        Line2D(
            [], [], linestyle="", marker=marker, markersize=7, color=colour, markerfacecolor=fill, label=label
        )
        for marker, colour, fill, label in (
            ("o", BLUE, BLUE, "ours"),
            ("D", VERMILLION, "white", "the paper"),
        )
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    numbers = "; ".join(
        f"{site} {stage_label(stage)}: ours {statistics.mean(values):.4f}, paper {theirs[site, stage]:.4f}"
        for (site, stage), values in ours.items()
    )
    return Picture(
        "paper",
        f"Accuracy here and in the paper. {numbers}.",
        "Filled: ours"
        + ", the mean over the seeds ± standard deviation" * any(len(values) > 1 for values in ours.values())
        + ". Hollow: the paper's accuracy. The "
        "differences in set-up are listed below; they may explain a gap.",
        figure,
    )
