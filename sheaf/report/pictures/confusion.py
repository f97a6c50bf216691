"""What the cloud's last model takes for what; classes that the same edges hold stand together, outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from sheaf.report.document import Picture
from sheaf.report.style import GREY, VERMILLION, drawable, sheet
from sheaf.report.tables import MANY

RIGHT = "#dcebf5"
WRITTEN = 12
"""Up to so many classes, each cell holds its count."""


def confusion(
    counts: Sequence[Sequence[int]], names: Sequence[str], groups: Sequence[Sequence[int]], stage: str
) -> Picture:
    """Args: (K, K) counts, rows the true classes; K names; the groups, which cover all classes; its step."""
    order = [k for group in groups for k in group]
    table = np.array(counts)[np.ix_(order, order)]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    mistakes = np.ma.array(shares, mask=np.eye(len(order), dtype=bool))
    figure, (axes,) = sheet(5.6 if len(names) > 6 else 3.6)
    darkest = max(float(mistakes.filled(0).max()), 0.01)
    axes.set_facecolor(RIGHT)
    image = axes.imshow(mistakes, cmap="Greys", vmin=0, vmax=darkest, interpolation="nearest")
    if len(names) <= WRITTEN:
        _numbers(axes, table, mistakes.filled(0) > 0.55 * darkest)
    if outlined := 1 < len(groups) < len(names):
        _outlines(axes, groups)
    shown = [drawable(names[k], 14) for k in order]
    if len(names) <= MANY:
        axes.set_xticks(range(len(names)), shown, rotation=45 if max(map(len, shown)) > 2 else 0, ha="right")
        axes.set_yticks(range(len(names)), shown)
        if max(map(len, shown)) <= 2:
            axes.set_xticks(range(len(names)), shown, rotation=0, ha="center")
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GREY)
    figure.colorbar(
        image, ax=axes, label="mistaken, of the class's test images", shrink=0.7, format=PercentFormatter(1)
    )
    return Picture(
        "confusion",
        f"Confusion matrix of the cloud's model ({stage}) over {len(names)} classes; "
        f"{within(counts, groups)[0]} of {within(counts, groups)[1]} errors stay within a group.",
        f"The cloud's model after '{stage}', on all test images: rows are what they are, columns what they "
        "are taken for; the darker, the more often. On the diagonal is what was right. "
        + ("Outlined: classes that the same edges hold." if outlined else ""),
        figure,
    )


def within(counts: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> tuple[int, int]:
    """(errors that stay within a group of classes, all errors)."""
    table = np.array(counts)
    table = table - np.diag(np.diagonal(table))
    return int(sum(table[np.ix_(group, group)].sum() for group in groups)), int(table.sum())


def _numbers(axes: Axes, table: NDArray[np.int64], dark: NDArray[np.bool_]) -> None:
    for (row, column), count in np.ndenumerate(table):
        if count:
            axes.text(
                column, row, f"{count}", ha="center", va="center", fontsize=8.5,
                color="white" if dark[row, column] else "black",
            )  # fmt: skip


def _outlines(axes: Axes, groups: Sequence[Sequence[int]]) -> None:
    start = 0
    for group in groups:
        size = len(group)
        axes.add_patch(
            Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=VERMILLION, linewidth=2)
        )
        start += size
