"""Picture of the cloud model's accuracy at each stage, with its reference."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from sheaf.report.document import Picture
from sheaf.report.stages import stage_label
from sheaf.report.style import (
    BLUE,
    COLOURS,
    DISTINCT,
    FAINT,
    GREY,
    INK,
    MARKERS,
    integer_ticks,
    legend_beside,
    new_figure,
    text_column,
)
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import Row

MAX_TARGETS = 200
"""Most rounds of a curve with a tooltip."""


def draw_steps(rows: Sequence[Row]) -> Picture:
    """Draw a line for each stage; for several rounds, a curve over the rounds."""
    several = max(row.round for row in rows) > 1
    names = list(dict.fromkeys(row.stage for row in rows))
    figure, (axes,) = new_figure(3.0 if several else 0.36 * len(rows) + 0.75)
    if several:
        _over_rounds(axes, rows, names)
    else:
        _one_by_one(axes, rows)
    numbers = "; ".join(
        f"{stage_label(row.stage)}{f' ({row.round})' * several} {row.accuracy:.4f}" for row in rows[-12:]
    )
    return Picture(
        "steps",
        f"Accuracy of the cloud's model on all classes: {numbers}.",
        "Accuracy on the test images of all classes at each stage of the method"
        + (", in each round." if several else ", from top to bottom.")
        + (
            " Hollow: the reference, which is not a stage of the method."
            if any(r.reference for r in rows)
            else ""
        ),
        figure,
    )


def _one_by_one(axes: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        colour = GREY if row.reference else BLUE
        (line,) = axes.plot(
            [0, row.accuracy], [y, y], color=colour, linewidth=2, linestyle=":" if row.reference else "-"
        )
        (marker,) = axes.plot(
            row.accuracy, y, marker="D" if row.reference else "o", markersize=8, color=colour,
            markerfacecolor="white" if row.reference else colour, markeredgewidth=1.5, clip_on=False,
        )  # fmt: skip
        for artist in (line, marker):
            set_tooltip(artist, _describe(row))
    text_column(axes, "", [(y, f"{row.accuracy:.4f}", INK) for y, row in enumerate(rows)])
    axes.set_yticks(range(len(rows)), [stage_label(row.stage, row.reference) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy on all classes")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _over_rounds(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        stage_rows = [row for row in rows if row.stage == name]
        reference = stage_rows[0].reference
        rounds = [row.round for row in stage_rows]
        accuracies = [row.accuracy for row in stage_rows]
        if reference and len(stage_rows) == 1:  # not a value of one round, but the level to compare with
            rounds, accuracies = [1, max(row.round for row in rows)], 2 * accuracies
        axes.plot(
            rounds, accuracies,
            color=GREY if reference else COLOURS[number % DISTINCT], 
            label=stage_label(name, reference),
            marker=MARKERS[number % len(MARKERS)], markerfacecolor="white" if reference else None,
            markevery=max(1, len(stage_rows) // 20), linestyle=":" if reference else "-", clip_on=False,
        )  # fmt: skip
        for row in stage_rows[:: max(1, len(stage_rows) // MAX_TARGETS)]:
            (target,) = axes.plot(row.round, row.accuracy, "o", markersize=11, alpha=0, clip_on=False)
            set_tooltip(target, _describe(row) + f" in round {row.round}" * (not reference))
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on all classes")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 1))
    integer_ticks(axes.xaxis)
    axes.grid(color=FAINT, linewidth=0.6)
    legend_beside(axes)


def _describe(row: Row) -> str:
    return f"{stage_label(row.stage, row.reference)}: {row.accuracy:.4f}"
