"""How every picture looks: one palette that the colour-blind can tell apart, and shapes that say the same in grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

# Okabe, Ito. Color Universal Design, 2008. https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#000000"
INK, GREY, FAINT = "#1b1f24", "#6b7280", "#d8dce2"

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK, GREY)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "||||")
DISTINCT = len(COLOURS)
"""So many things can be told apart by colour and shape."""

WIDTH = 7.4
"""Inches: the page shows a picture at 96 pixels an inch, and shrinks none of them on a laptop."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 160,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "sheaf",  # the same run gives the same file
    "text.parse_math": False,  # a class may be named "$5"
}


@contextmanager
def styled() -> Iterator[None]:
    """Pictures are drawn and saved within."""
    with matplotlib.rc_context(RC):
        yield


def sheet(height: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width and so many inches of height, and its axes, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    return figure, list(axes.flat)


def drawable(name: str, longest: int = 18) -> str:
    """A name from outside as a picture can show it: one line, not too long, no sign that the font lacks."""
    signs = "".join(sign if ord(sign) in _signs() else "?" for sign in " ".join(name.split()))
    return signs if len(signs) <= longest else signs[: longest - 1] + "…"


@cache
def _signs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=RC["font.family"]))).get_charmap())


def legend_above(axes: Axes, columns: int = 4, **settings: Any) -> None:
    """A legend over the top edge of ``axes``, at its left, out of the way of what is drawn."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.4,
        **settings,
    )


def percent_axis(axes: Axes, values: Sequence[float], which: str = "x", room: float = 0.08) -> None:
    """Fits an axis of accuracies, 0 to 1, to ``values``, with room at both ends."""
    low, high = min(values), max(values)
    pad = max((high - low) * room, 0.004)
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    set_limits(max(low - pad, -0.02), min(high + pad, 1.02))
