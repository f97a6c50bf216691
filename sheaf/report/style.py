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
INK, GREY, FAINT = "#1b1f24", "#6b7280", "#d8dce2"

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


def legend_above(axes: Axes, columns: int = 4, **settings: Any) -> None:
    """Add a legend above the top left corner of ``axes``, where it covers no data."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.4,
        **settings,
    )


def set_accuracy_axis(axes: Axes, values: Sequence[float], after: float = 0.08) -> None:
    """Set limits and ticks of the x axis for accuracies; no tick exceeds 1.

    Args:
        axes: the axes.
        values: all accuracies to be drawn.
        after: margin on the right, as a fraction of the values' range.
    """
    low, high = min(values), max(values)
    span = max(high - low, 0.01)
    axes.set_xlim(low - 0.08 * span, high + after * span)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, min(high + 0.3 * span, 1))
    axes.set_xticks([tick for tick in ticks if low - 0.04 * span <= tick <= min(1, high + after * span)])


def plain_ticks(axis: Axis) -> None:
    """Label ticks with plain numbers, on a logarithmic axis too."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def integer_ticks(axis: Axis) -> None:
    """Place ticks at integers only, and label them with thousands separators."""
    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
