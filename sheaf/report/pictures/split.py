"""Who holds what: classes by edges, training images as area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sheaf.report.document import Picture
from sheaf.report.style import BLUE, FAINT, GREY, WIDTH, drawable, sheet
from sheaf.report.tables import MANY
from sheaf.runtime.result import Result

Counts = NDArray[np.int64]
SQUARES = 40
"""Up to so many across, a square is drawn for each class of each edge; beyond, a bar."""

IN_PIXELS = 5_000
"""With more cells than this, the bars are pixels in the SVG too, which stays small."""


def split(result: Result) -> Picture:
    """Classes as rows and edges as columns, or the other way round where the classes are more."""
    sites = list(result.split)
    counts = np.array([result.split[site] for site in sites], dtype=np.int64).T  # (classes, edges)
    many = len(sites) > MANY
    if many:
        order = np.lexsort((-counts.max(axis=0), counts.argmax(axis=0)))
        counts = counts[:, order]
    edges = ["edges, by their largest class"] if many else [drawable(site, 12) for site in sites]
    classes = [drawable(name, 14) for name in result.classes] if len(result.classes) <= MANY else ["classes"]
    turned = counts.shape[0] > counts.shape[1]
    grid, across, down = (counts.T, classes, edges) if turned else (counts, edges, classes)
    figure = _draw(grid, across, down, counts.sum(axis=0), turned)
    totals = counts.sum(axis=0)
    return Picture(
        "split",
        f"{len(sites)} edges with {totals.min():,} to {totals.max():,} training images of "
        f"{(counts > 0).sum(axis=0).min()} to {(counts > 0).sum(axis=0).max()} of {len(counts)} classes.",
        (
            "The area of a square"
            if max(grid.shape) <= SQUARES
            else "Each edge is a column, and the height of its bar in a row"
        )
        + f" is the number of training images of that class on that edge (most: {counts.max():,}). "
        "Grey: each edge's images in all.",
        figure,
    )


def _draw(grid: Counts, across: Sequence[str], down: Sequence[str], totals: Counts, turned: bool) -> Figure:
    rows, columns = grid.shape
    upright = len(across) == columns and max(map(len, across)) * columns > 70
    labels = 0.075 * max(map(len, across)) if upright else 0  # inches
    cell = min(0.34, (WIDTH - 1.7) / columns)  # inches
    height = max(cell * rows, 0.16 * rows if rows <= MANY else 1.2)
    if turned:
        figure, (main, side) = sheet(height + 0.9 + labels, 1, 2, sharey=True, width_ratios=[6, 1])
        side.barh(range(rows), totals, color=GREY, height=0.7)
        side.set_xlabel("images")
        side.xaxis.set_major_locator(MaxNLocator(2))
        side.xaxis.set_major_formatter("{x:,.0f}")
        side.tick_params(axis="y", length=0)
    else:
        figure, (side, main) = sheet(height + 1.5 + labels, 2, 1, sharex=True, height_ratios=[0.6, height])
        if columns <= SQUARES:
            side.bar(range(columns), totals, color=GREY, width=0.7)
        else:
            side.stairs(totals, np.arange(columns + 1) - 0.5, fill=True, color=GREY)
        side.set_ylabel("images")
        side.yaxis.set_major_locator(MaxNLocator(2))
        side.yaxis.set_major_formatter("{x:,.0f}")
        side.tick_params(axis="x", length=0)
        side.spines["bottom"].set_visible(False)
    if max(rows, columns) <= SQUARES:
        _squares(main, grid, cell)
    else:
        _bars(main, grid)
    main.set_xlim(-0.6, columns - 0.4)
    main.set_ylim(rows - 0.4, -0.6)
    for names, count, ticks, label in (
        (across, columns, main.set_xticks, main.set_xlabel),
        (down, rows, main.set_yticks, main.set_ylabel),
    ):
        if len(names) == count:
            ticks(range(count), names)
        else:
            label(f"{count:,} {names[0]}")
            ticks([])
    if upright:
        main.tick_params(axis="x", rotation=90)
    main.tick_params(length=0)
    return figure


def _squares(axes: Axes, grid: Counts, cell: float) -> None:
    """A square for each count, its area in proportion to it; the largest fills its cell."""
    y, x = np.nonzero(grid)
    areas = grid[y, x] / max(grid.max(), 1) * (0.92 * 72 * cell) ** 2  # of markers: points, squared
    axes.scatter(x, y, s=areas, marker="s", color=BLUE, linewidths=0)
    if max(grid.shape) <= MANY:
        axes.set_xticks(np.arange(grid.shape[1] + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(grid.shape[0] + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=FAINT, linewidth=0.5)
        axes.tick_params(which="minor", length=0)


def _bars(axes: Axes, grid: Counts) -> None:
    """A row of bars for each line of the grid, on a line of its own; the highest fills the row."""
    edges = np.arange(grid.shape[1] + 1) - 0.5
    for y, counts in enumerate(grid):
        heights = counts / max(grid.max(), 1) * 0.92
        axes.stairs(
            y + 0.46 - heights, edges, baseline=y + 0.46, fill=True, color=BLUE, linewidth=0,
            rasterized=grid.size > IN_PIXELS,
        )  # fmt: skip
        axes.axhline(y + 0.46, color=FAINT, linewidth=0.5, zorder=0)
