"""How every picture looks: colours that the colour-blind can tell apart, and shapes that do so in grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

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

RC: Any = {
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
    "figure.constrained_layout.h_pad": 0.07,
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


def accuracies(axes: Axes, values: Sequence[float], after: float = 0.08) -> None:
    """Fits the x axis to accuracies, with so much room (of their span) after them, and no tick above 1."""
    low, high = min(values), max(values)
    span = max(high - low, 0.01)
    axes.set_xlim(low - 0.08 * span, high + after * span)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, min(high + 0.3 * span, 1))
    axes.set_xticks([tick for tick in ticks if low - 0.04 * span <= tick <= min(1, high + after * span)])


def plain_numbers(axis: Axis) -> None:
    """Ticks as plain numbers, on a logarithmic axis too."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only, with commas."""
    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
