"""Picture of the split: training images of each class on each edge, as areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sheaf.report.document import Picture
from sheaf.report.formatting import MAX_LISTED, format_number_of
from sheaf.report.style import BLUE, FAINT, GREY, WIDTH, new_figure, printable_name
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import Result

Counts = NDArray[np.int64]
MAX_SQUARES = 40
"""Most edges or classes for which each cell is a square; above, it is a bar."""

MAX_VECTOR_CELLS = 5_000
"""Most cells that the SVG contains as vectors; more are rasterised to keep the file small."""


def draw_split(result: Result) -> Picture:
    """Draw classes as rows and edges as columns; the other way round if there are more classes."""
    sites = list(result.split)
    counts = np.array([result.split[site] for site in sites], dtype=np.int64).T  # (classes, edges)
    many = len(sites) > MAX_LISTED
    if many:
        order = np.lexsort((-counts.max(axis=0), counts.argmax(axis=0)))
        counts = counts[:, order]
        sites = [sites[n] for n in order]
    edges = ["edges, sorted by largest class"] if many else [printable_name(site, 12) for site in sites]
    classes = (
        [printable_name(name, 14) for name in result.classes]
        if len(result.classes) <= MAX_LISTED
        else ["classes"]
    )
    turned = counts.shape[0] > counts.shape[1]
    grid, across, down = (counts.T, classes, edges) if turned else (counts, edges, classes)
    all_names = (list(result.classes), sites) if turned else (sites, list(result.classes))
    figure = _draw(grid, across, down, counts.sum(axis=0), turned)
    if max(grid.shape) <= MAX_SQUARES:
        _describe_cells(figure.axes[0 if turned else 1], grid, *all_names)
    totals = counts.sum(axis=0)
    return Picture(
        "split",
        f"{len(sites)} edges with {totals.min():,} to {totals.max():,} training images of "
        f"{(counts > 0).sum(axis=0).min()} to {(counts > 0).sum(axis=0).max()} of {len(counts)} classes.",
        (
            "The area of a square"
            if max(grid.shape) <= MAX_SQUARES
            else f"Each edge is a {'row' if turned else 'column'}; the height of a bar"
        )
        + f" is the number of training images of that class on that edge (maximum: {counts.max():,}). "
        "Grey: all images of each edge.",
        figure,
    )


def _draw(grid: Counts, across: Sequence[str], down: Sequence[str], totals: Counts, turned: bool) -> Figure:
    rows, columns = grid.shape
    upright = len(across) == columns and max(map(len, across)) * columns > 70
    labels = 0.075 * max(map(len, across)) if upright else 0  # inches
    cell = min(0.34, (WIDTH - 1.7) / columns)  # inches
    height = max(cell * rows, 0.16 * rows if rows <= MAX_LISTED else 1.2)
    if turned:
        figure, (main, side) = new_figure(height + 0.9 + labels, 1, 2, sharey=True, width_ratios=[6, 1])
        side.barh(range(rows), totals, color=GREY, height=0.7)
        side.set_xlabel("images")
        side.xaxis.set_major_locator(MaxNLocator(2))
        side.xaxis.set_major_formatter("{x:,.0f}")
        side.tick_params(axis="y", length=0)
    else:
        figure, (side, main) = new_figure(
            height + 1.5 + labels, 2, 1, sharex=True, height_ratios=[0.6, height]
        )
        if columns <= MAX_SQUARES:
            side.bar(range(columns), totals, color=GREY, width=0.7)
        else:
            side.stairs(totals, np.arange(columns + 1) - 0.5, fill=True, color=GREY)
        side.set_ylabel("images")
        side.yaxis.set_major_locator(MaxNLocator(2))
        side.yaxis.set_major_formatter("{x:,.0f}")
        side.tick_params(axis="x", length=0)
        side.spines["bottom"].set_visible(False)
    if max(rows, columns) <= MAX_SQUARES:
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
    """Draw each count as a square of proportional area; the largest fills its cell."""
    y, x = np.nonzero(grid)
    areas = grid[y, x] / max(grid.max(), 1) * (0.92 * 72 * cell) ** 2  # marker areas, in points²
    axes.scatter(x, y, s=areas, marker="s", color=BLUE, linewidths=0)
    if max(grid.shape) <= MAX_LISTED:
        axes.set_xticks(np.arange(grid.shape[1] + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(grid.shape[0] + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=FAINT, linewidth=0.5)
        axes.tick_params(which="minor", length=0)


def _describe_cells(axes: Axes, grid: Counts, across: Sequence[str], down: Sequence[str]) -> None:
    """Give each cell a tooltip, on an invisible area."""
    for (y, x), count in np.ndenumerate(grid):
        area = Rectangle((x - 0.5, y - 0.5), 1, 1, alpha=0)
        set_tooltip(area, f"{down[y]}, {across[x]}: {format_number_of(int(count), 'training image')}")
        axes.add_patch(area)


def _bars(axes: Axes, grid: Counts) -> None:
    """Draw each row of the grid as bars on a baseline; the highest bar fills the row."""
    edges = np.arange(grid.shape[1] + 1) - 0.5
    for y, counts in enumerate(grid):
        heights = counts / max(grid.max(), 1) * 0.92
        axes.stairs(
            y + 0.46 - heights, edges, baseline=y + 0.46, fill=True, color=BLUE, linewidth=0,
            rasterized=grid.size > MAX_VECTOR_CELLS,
        )  # fmt: skip
        axes.axhline(y + 0.46, color=FAINT, linewidth=0.5, zorder=0)
