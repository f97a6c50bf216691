"""Picture of a confusion matrix, with the classes of the same edges side by side and outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from sheaf.report.document import Picture
from sheaf.report.formatting import MAX_LISTED, format_fraction
from sheaf.report.style import BLUE, GREY, INK, PAPER, VERMILLION, new_figure, printable_name
from sheaf.report.svg import set_tooltip

MAX_WITH_COUNTS = 12
"""Most classes for which the cells contain their counts."""

MAX_VECTOR_CLASSES = 25
"""Most classes for which each cell is a rectangle with a tooltip. More cells are one image: smaller files."""


def draw_confusion(
    counts: Sequence[Sequence[int]], names: Sequence[str], groups: Sequence[Sequence[int]], stage: str
) -> Picture:
    """Draw the confusion matrix of the cloud's model.

    A cell's opacity is the fraction of its class's test images, on a fixed scale from 0 to 1.

    Args:
        counts: (K, K), rows are the true classes.
        names: of the K classes.
        groups: a partition of the classes.
        stage: the stage at which the model was measured.
    """
    order = [k for group in groups for k in group]
    table = np.array(counts)[np.ix_(order, order)]
    fractions = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, (axes,) = new_figure(5.6 if len(names) > 6 else 3.6)
    if len(names) <= MAX_VECTOR_CLASSES:
        _draw_cells(axes, table, fractions, [names[k] for k in order])
    else:
        _draw_image(axes, fractions)
    axes.set_aspect("equal")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
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
    handles = [Patch(color=BLUE, label="correct"), Patch(color=VERMILLION, label="errors")]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    inside, total = errors_within_groups(counts, groups)
    return Picture(
        "confusion",
        f"Confusion matrix of the cloud's model ({stage}) over {len(names)} classes; "
        f"{inside} of {total} errors stay within a group.",
        f"The cloud's model at the stage '{stage}', on all test images. Rows are true classes, columns are "
        "predicted classes. A full colour is all test images of the true class; paler colours are fewer, in "
        "proportion." + (" Outlined: classes of the same edges." if outlined else ""),
        figure,
    )


def errors_within_groups(counts: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return (number of errors within a group of classes, number of all errors)."""
    table = np.array(counts)
    table = table - np.diag(np.diagonal(table))
    return int(sum(table[np.ix_(group, group)].sum() for group in groups)), int(table.sum())


def _draw_cells(
    axes: Axes, table: NDArray[np.int64], fractions: NDArray[np.float64], names: Sequence[str]
) -> None:
    for (row, column), count in np.ndenumerate(table):
        correct = row == column
        if not (count or correct):
            continue
        cell = Rectangle(
            (column - 0.5, row - 0.5), 1, 1, facecolor=BLUE if correct else VERMILLION, linewidth=0,
            alpha=fractions[row, column],
        )  # fmt: skip
        axes.add_patch(cell)
        images = table[row].sum()
        artists: list[Artist] = [cell]
        if len(names) <= MAX_WITH_COUNTS:
            artists.append(
                axes.text(
                    column, row, f"{count}", ha="center", va="center", fontsize=8.5,
                    color=PAPER if fractions[row, column] > 0.55 else INK,
                )
            )  # fmt: skip
        for artist in artists:
            set_tooltip(
                artist,
                f"{names[row]} classified as {names[column]}: {format_fraction(count, images)} test images",
            )


def _draw_image(axes: Axes, fractions: NDArray[np.float64]) -> None:
    """Draw the cells as one image, whose transparent cells show the page's colour."""
    image = np.empty((*fractions.shape, 4))
    image[..., :3] = to_rgb(VERMILLION)
    image[range(len(fractions)), range(len(fractions)), :3] = to_rgb(BLUE)
    image[..., 3] = fractions
    axes.imshow(image, interpolation="nearest")


def _outline_groups(axes: Axes, groups: Sequence[Sequence[int]]) -> None:
    start = 0
    for group in groups:
        size = len(group)
        axes.add_patch(
            Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=INK, linewidth=2)
        )
        start += size
