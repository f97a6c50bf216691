"""The common style of all pictures.

Colours are distinguishable for colour-blind readers. Markers and hatches differ too, for prints in grey.
"""

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
INK, GREY, FAINT, PAPER = "#1b1f24", "#6b7280", "#d8dce2", "#ffffff"

COLOUR_NAMES = {
    BLUE.lower(): "blue", VERMILLION.lower(): "vermillion", GREEN.lower(): "green", ORANGE.lower(): "orange",
    SKY.lower(): "sky", PURPLE.lower(): "purple", BLACK: "ink", INK: "ink", GREY: "quiet", FAINT: "line",
    PAPER: "paper",
}  # fmt: skip
"""Colour -> its variable in ``page.css``, which has a light and a dark value."""

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK, GREY)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "||||")
DISTINCT = len(COLOURS)
"""Most series that colour and shape can distinguish."""

WIDTH = 7.4
"""Width of a figure in inches. The page shows it at 96 pixels per inch, unscaled on a laptop's screen."""

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
    "svg.fonttype": "path",  # independent of the fonts installed where the picture is shown
    "svg.hashsalt": "sheaf",  # makes the SVG reproducible
    "text.parse_math": False,  # a class name may contain "$"
}


@contextmanager
def picture_style() -> Iterator[None]:
    """Apply the style to the figures drawn and saved within the context."""
    with matplotlib.rc_context(RC):
        yield


def new_figure(height: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width and its axes, row by row.

    Args:
        height: in inches.
        rows, columns: the grid of axes.
        settings: passed to ``Figure.subplots``.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    return figure, list(axes.flat)


def printable_name(name: str, longest: int = 18) -> str:
    """Return a user's name for a picture.

    It is one line of at most ``longest`` characters; those missing in the font become ``?``.
    """
    text = "".join(c if ord(c) in _font_characters() else "?" for c in " ".join(name.split()))
    return text if len(text) <= longest else text[: longest - 1] + "…"


@cache
def _font_characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=RC["font.family"]))).get_charmap())


def legend_beside(axes: Axes, **settings: Any) -> None:
    """Add a legend at the right of ``axes``, where it covers neither data nor the title."""
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0.2, handletextpad=0.4, **settings)


def set_accuracy_axis(axes: Axes, values: Sequence[float]) -> None:
    """Set limits and ticks of the x axis for accuracies; the axis stays within 0 to 1.

    Markers at 0 or 1 are complete only if their artists have ``clip_on=False``.

    Args:
        axes: the axes.
        values: all accuracies to be drawn.
    """
    low, high = min(values), max(values)
    margin = 0.08 * max(high - low, 0.01)
    low, high = max(low - margin, 0), min(high + margin, 1)
    axes.set_xlim(low, high)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low <= round(tick, 9) <= high])


def text_column(axes: Axes, title: str, texts: Sequence[tuple[float, str, str]]) -> None:
    """Write a column of texts at the right of the axes, where they cover no data.

    Args:
        axes: the axes.
        title: of the column.
        texts: (y, text, colour) of each text.
    """
    place: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    axes.annotate(title, (1, 1), (12, 4), xycoords="axes fraction", fontsize=8.5, color=GREY, **place)
    for y, text, colour in texts:
        axes.annotate(
            text, (1, y), (12, 0), xycoords=("axes fraction", "data"), va="center", fontsize=8.5,
            color=colour, **place,
        )  # fmt: skip


def plain_ticks(axis: Axis) -> None:
    """Label ticks with plain numbers, on a logarithmic axis too."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def integer_ticks(axis: Axis) -> None:
    """Place ticks at integers only, and label them with thousands separators."""
    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
