"""The paper's figures beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.lines import Line2D

from sheaf.report.document import Picture
from sheaf.report.intervals import half_interval
from sheaf.report.style import BLUE, FAINT, GREY, VERMILLION, accuracies, sheet


def paper(
    ours: Mapping[tuple[str, str], Sequence[float]], theirs: Mapping[tuple[str, str], float]
) -> Picture:
    """A row for each device and step: ours with its interval over seeds, and the paper's."""
    figure, (axes,) = sheet(0.34 * len(ours) + 1.0)
    for y, (key, values) in enumerate(ours.items()):
        mean, half = statistics.mean(values), half_interval(values)
        axes.plot([theirs[key], mean], [y, y], color=GREY, linewidth=0.9, zorder=1)
        axes.plot(
            theirs[key], y, marker="D", color=VERMILLION, markerfacecolor="white", markersize=7,
            markeredgewidth=1.5,
        )  # fmt: skip
        axes.errorbar(mean, y, xerr=half, fmt="o", color=BLUE, markersize=7, capsize=3)
    edges = [value for values in ours.values() for value in values] + list(theirs.values())
    accuracies(axes, edges)
    axes.set_yticks(range(len(ours)), [f"{site}, {stage}" for site, stage in ours])
    axes.set_ylim(len(ours) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy on the device's own classes (the cloud's: all)")
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
    told = "; ".join(
        f"{site} {stage}: ours {statistics.mean(values):.4f}, paper {theirs[site, stage]:.4f}"
        for (site, stage), values in ours.items()
    )
    return Picture(
        "paper",
        f"Accuracy here and in the paper. {told}.",
        "Full: ours, the mean over the seeds with its 95 % interval; hollow: the paper's figure. The "
        "differences of set-up are listed below: a gap need not be the method's.",
        figure,
    )
