"""When taking part pays: the gain of an edge by images, split, initial weights and number of edges."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.sections._tables import Rows, table

CELL = ("weights", "edges", "images", "split")
SPLITS = ("disjoint", "dirichlet 0.1", "dirichlet 1", "iid")
METHODS = ("ecavg", "ecavg_plus")

Cell = tuple[object, ...]
"""The values of ``CELL``."""


def gains(rows: Rows, method: str, classes: str) -> dict[Cell, list[float]]:
    """Return the mean gain of the edges over training alone, in points, for each cell and seed.

    Args:
        rows: of the result file.
        method: the method whose gain is computed.
        classes: ``own`` or ``all``.
    """
    alone = {(*(row[key] for key in CELL), row["seed"]): row for row in rows if row["method"] == "local"}
    found: dict[Cell, list[float]] = {}
    for row in rows:
        cell = tuple(row[key] for key in CELL)
        if row["method"] == method and (other := alone.get((*cell, row["seed"]))):
            gain = statistics.fmean(row[classes]) - statistics.fmean(other[classes])
            found.setdefault(cell, []).append(100 * gain)
    return found


def in_order(cell: Cell) -> tuple[object, ...]:
    """Return the place of a cell: pre-trained first, then few edges, few images, unequal splits."""
    weights, edges, images, split = cell
    return weights, edges, images, SPLITS.index(str(split))


def _points(gains: Sequence[float]) -> str:
    """Return the mean of the seeds with its sign, and the standard deviation of several."""
    if not gains:
        return "-"
    spread = f" ± {statistics.stdev(gains):.1f}" if len(gains) > 1 else ""
    return f"{statistics.fmean(gains):+.1f}{spread}"


def taking_part(rows: Rows) -> str:
    """Return the section."""
    columns = [gains(rows, method, classes) for classes in ("own", "all") for method in METHODS]
    lines: list[Sequence[object]] = [
        (*cell, *(_points(gain.get(cell, ())) for gain in columns), len(seeds))
        for cell, seeds in sorted(columns[0].items(), key=lambda item: in_order(item[0]))
    ]
    heading = (
        "weights", "edges", "images an edge", "split", "own: ecavg", "own: plus", "all: ecavg", "all: plus",
        "seeds",
    )  # fmt: skip
    seeds = sorted({row["seed"] for row in rows})
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return (
        "## When taking part pays\n\nThe gain of an edge over training alone with the same edge work, in "
        "percentage points, on the test images of its own classes and of all classes, mean over the edges: "
        f"EfficientNet-Lite0 on CIFAR-10 at 32x32, 1,000 test images, {named}. *images an edge* is a mean, a "
        "tenth of them held out; a Dirichlet split gives edges different numbers. *plus* is `ecavg_plus`. "
        "The number of test images alone gives a difference a standard error of one to two points.\n\n"
        "![Gain of an edge](pictures/taking-part.svg)\n\n" + table(heading, lines)
    )
