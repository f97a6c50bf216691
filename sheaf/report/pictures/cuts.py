"""Picture of the cuts: the channels of each layer in each device's sub-model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sheaf.report.document import Picture
from sheaf.report.formatting import join_names
from sheaf.report.style import BLUE, COLOURS, DISTINCT, FAINT, HATCHES, new_figure, printable_name
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import CutsRecord, PartRecord

OPACITY = LinearSegmentedColormap.from_list("opacity", [(BLUE, 0.0), (BLUE, 1.0)])
"""From transparent, which shows the page's colour, to full blue."""

RESOLUTION = 256
"""Horizontal resolution of the picture of many sub-models."""


def draw_cuts(cuts: CutsRecord) -> Picture:
    """Draw a lane per sub-model in every layer; for many sub-models, the number of devices per channel."""
    few = len(cuts.parts) <= DISTINCT
    devices = sum(len(part.sites) for part in cuts.parts)
    fractions = [channel_fraction(part, cuts.groups) for part in cuts.parts]
    return Picture(
        "cuts",
        f"{len(cuts.parts)} different sub-models of {len(cuts.groups)} layers on {devices} devices: "
        f"{100 * min(fractions):.0f} % to {100 * max(fractions):.0f} % of the channels.",
        "Rows are the layers, from the input down; columns are the channels of a layer. "
        + (
            "Coloured: the channels in a device's sub-model, one lane per sub-model."
            if few
            else "The fuller the colour of a channel, the more devices have it in their sub-models."
        )
        + " Layers with coupled channels share a row. The shared stem is complete on all devices.",
        (_lanes if few else _coverage)(cuts),
    )


def channel_fraction(part: PartRecord, groups: dict[str, int]) -> float:
    """Return the fraction of all channels that are in a sub-model."""
    channels = sum(_number(part.kept.get(name), width) for name, width in groups.items())
    return channels / max(sum(groups.values()), 1)


def _number(runs: Sequence[tuple[int, int]] | None, width: int) -> int:
    return width if runs is None else sum(stop - start for start, stop in runs)


def _lanes(cuts: CutsRecord) -> Figure:
    lanes = len(cuts.parts)
    lane = min(0.12, 7.5 / (lanes * len(cuts.groups)))  # inches
    figure, (axes,) = new_figure(len(cuts.groups) * (lanes * lane + 0.06) + 1.1)
    for y, (name, width) in enumerate(cuts.groups.items()):
        axes.barh(y, 1, height=0.86, color=FAINT, alpha=0.4, zorder=0)
        for n, part in enumerate(cuts.parts):
            runs = part.kept.get(name, [(0, width)])
            bars = axes.broken_barh(
                [(start / width, (stop - start) / width) for start, stop in runs],
                (y - 0.43 + 0.86 * n / lanes, 0.86 / lanes),
                facecolor=COLOURS[n], hatch=HATCHES[n], edgecolor="white", linewidth=0.4,
            )  # fmt: skip
            set_tooltip(
                bars,
                f"{join_names(part.sites)}, layer {name}: {_number(runs, width):,} of {width:,} channels",
            )
    _layers(axes, cuts)
    handles = [
        Patch(facecolor=COLOURS[n], hatch=HATCHES[n], edgecolor="white", label=_holders(part.sites))
        for n, part in enumerate(cuts.parts)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


def _coverage(cuts: CutsRecord) -> Figure:
    figure, (axes,) = new_figure(max(min(0.26 * len(cuts.groups), 7.5), 1.3) + 0.9)
    counts = np.zeros((len(cuts.groups), RESOLUTION), dtype=np.int64)
    for y, (name, width) in enumerate(cuts.groups.items()):
        channels = np.zeros(width, dtype=np.int64)
        for part in cuts.parts:
            for start, stop in part.kept.get(name, [(0, width)]):
                channels[start:stop] += len(part.sites)
        counts[y] = channels[np.arange(RESOLUTION) * width // RESOLUTION]
    image = axes.imshow(
        counts, aspect="auto", cmap=OPACITY, vmin=0, extent=(0, 1, len(cuts.groups) - 0.5, -0.5),
        interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(image, ax=axes, label="devices with the channel")
    _layers(axes, cuts)
    return figure


def _layers(axes: Axes, cuts: CutsRecord) -> None:
    names = [f"{printable_name(name, 24)}  {width}" for name, width in cuts.groups.items()]
    axes.set_yticks(range(len(names)), names, fontsize=9 if len(names) <= 24 else 6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("channels of the layer")
    axes.tick_params(axis="y", length=0)


def _holders(sites: Sequence[str]) -> str:
    return printable_name(sites[0], 14) + (f" and {len(sites) - 1} more" if len(sites) > 1 else "")
