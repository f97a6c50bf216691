"""Picture of a confusion matrix, with the classes of the same edges side by side and outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from sheaf.report.document import Picture
from sheaf.report.formatting import MAX_LISTED
from sheaf.report.style import GREY, VERMILLION, new_figure, printable_name

DIAGONAL = "#dcebf5"
MAX_WITH_COUNTS = 12
"""Most classes for which the cells contain their counts."""


def draw_confusion(
    counts: Sequence[Sequence[int]], names: Sequence[str], groups: Sequence[Sequence[int]], stage: str
) -> Picture:
    """Draw the confusion matrix of the cloud's model.

    Args:
        counts: (K, K), rows are the true classes.
        names: of the K classes.
        groups: a partition of the classes.
        stage: the stage at which the model was measured.
    """
    order = [k for group in groups for k in group]
    table = np.array(counts)[np.ix_(order, order)]
    fractions = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    errors = np.ma.array(fractions, mask=np.eye(len(order), dtype=bool))
    figure, (axes,) = new_figure(5.6 if len(names) > 6 else 3.6)
    darkest = max(float(errors.filled(0).max()), 0.01)
    axes.set_facecolor(DIAGONAL)
    image = axes.imshow(errors, cmap="Greys", vmin=0, vmax=darkest, interpolation="nearest")
    if len(names) <= MAX_WITH_COUNTS:
        _write_counts(axes, table, errors.filled(0) > 0.55 * darkest)
    if outlined := 1 < len(groups) < len(names):
        _outline_groups(axes, groups)
    shown = [printable_name(names[k], 14) for k in order]
    if len(names) <= MAX_LISTED:
        long = max(map(len, shown)) > 2
        axes.set_xticks(range(len(names)), shown, rotation=45 * long, ha="right" if long else "center")
        axes.set_yticks(range(len(names)), shown)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GREY)
    figure.colorbar(
        image,
        ax=axes,
        label="errors, fraction of the class's test images",
        shrink=0.7,
        format=PercentFormatter(1),
    )
    inside, total = errors_within_groups(counts, groups)
    return Picture(
        "confusion",
        f"Confusion matrix of the cloud's model ({stage}) over {len(names)} classes; "
        f"{inside} of {total} errors stay within a group.",
        f"The cloud's model at the stage '{stage}', on all test images. Rows are true classes, columns are "
        "predicted classes; darker cells contain more errors, the diagonal contains the correct predictions."
        + (" Outlined: classes of the same edges." if outlined else ""),
        figure,
    )


def errors_within_groups(counts: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return (number of errors within a group of classes, number of all errors)."""
    table = np.array(counts)
    table = table - np.diag(np.diagonal(table))
    return int(sum(table[np.ix_(group, group)].sum() for group in groups)), int(table.sum())


def _write_counts(axes: Axes, table: NDArray[np.int64], dark: NDArray[np.bool_]) -> None:
    for (row, column), count in np.ndenumerate(table):
        if count:
            axes.text(
                column, row, f"{count}", ha="center", va="center", fontsize=8.5,
                color="white" if dark[row, column] else "black",
            )  # fmt: skip


def _outline_groups(axes: Axes, groups: Sequence[Sequence[int]]) -> None:
    start = 0
    for group in groups:
        size = len(group)
        axes.add_patch(
            Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=VERMILLION, linewidth=2)
        )
        start += size
