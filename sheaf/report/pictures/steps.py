"""The cloud's model at each step, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from sheaf.report.document import Picture
from sheaf.report.style import (
    BLUE,
    COLOURS,
    DISTINCT,
    FAINT,
    GREY,
    MARKERS,
    legend_above,
    sheet,
    whole_numbers,
)
from sheaf.runtime.result import Row


def steps(rows: Sequence[Row]) -> Picture:
    """A line for each step; over the rounds where there are several."""
    several = max(row.round for row in rows) > 1
    names = list(dict.fromkeys(row.stage for row in rows))
    figure, (axes,) = sheet(3.0 if several else 0.36 * len(rows) + 0.75)
    if several:
        _over_rounds(axes, rows, names)
    else:
        _one_by_one(axes, rows)
    told = "; ".join(f"{row.stage}{f' ({row.round})' * several} {row.accuracy_all:.4f}" for row in rows[-12:])
    return Picture(
        "steps",
        f"Accuracy of the cloud's model on all classes: {told}.",
        "Accuracy on the test images of all classes after each step of the method"
        + (", in each round." if several else ", from top to bottom.")
        + (
            " Hollow: what it is compared with, no step of its own." if any(r.reference for r in rows) else ""
        ),
        figure,
    )


def _one_by_one(axes: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        colour = GREY if row.reference else BLUE
        axes.plot(
            [0, row.accuracy_all], [y, y], color=colour, linewidth=2, linestyle=":" if row.reference else "-"
        )
        axes.plot(
            row.accuracy_all, y, marker="D" if row.reference else "o", markersize=8, color=colour,
            markerfacecolor="white" if row.reference else colour, markeredgewidth=1.5,
        )  # fmt: skip
        axes.annotate(
            f"{row.accuracy_all:.4f}", (row.accuracy_all, y), (9, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), [row.stage + " (compared with)" * row.reference for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel("accuracy on all classes")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _over_rounds(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        of = [row for row in rows if row.stage == name]
        hollow = of[0].reference
        axes.plot(
            [row.round for row in of], [row.accuracy_all for row in of],
            color=GREY if hollow else COLOURS[number % DISTINCT], label=name + " (compared with)" * hollow,
            marker=MARKERS[number % len(MARKERS)], markerfacecolor="white" if hollow else None,
            markevery=max(1, len(of) // 20), linestyle=":" if hollow else "-",
        )  # fmt: skip
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on all classes")
    whole_numbers(axes.xaxis)
    axes.grid(color=FAINT, linewidth=0.6)
    legend_above(axes)
