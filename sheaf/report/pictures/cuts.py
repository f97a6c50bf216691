"""The cuts: which channels of each layer every device holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sheaf.report.document import Picture
from sheaf.report.style import COLOURS, DISTINCT, HATCHES, drawable, sheet
from sheaf.runtime.result import CutsRecord, PartRecord

STEPS = 256
"""In so many steps the width of a layer is drawn where the holders of its channels are counted."""


def cuts(held: CutsRecord) -> Picture:
    """A lane for each part in every layer; where the parts are many, how many devices hold each channel."""
    few = len(held.parts) <= DISTINCT
    devices = sum(len(part.sites) for part in held.parts)
    shares = [share(part, held.groups) for part in held.parts]
    return Picture(
        "cuts",
        f"{len(held.parts)} different parts of {len(held.groups)} layers, held by {devices} devices: "
        f"{100 * min(shares):.0f} % to {100 * max(shares):.0f} % of the channels.",
        "From top to bottom the layers, from the input on; from left to right all channels of a layer. "
        + (
            "Coloured is what a device holds, each device in a lane of its own."
            if few
            else "The darker, the more devices hold these channels."
        )
        + " Layers whose channels go together are one row; what all devices hold whole is the shared stem.",
        (_lanes if few else _coverage)(held),
    )


def share(part: PartRecord, groups: dict[str, int]) -> float:
    """The share of all channels that a part holds."""
    channels = sum(_size(part.kept.get(name), width) for name, width in groups.items())
    return channels / max(sum(groups.values()), 1)


def _size(runs: Sequence[tuple[int, int]] | None, width: int) -> int:
    return width if runs is None else sum(stop - start for start, stop in runs)


def _lanes(held: CutsRecord) -> Figure:
    lanes = len(held.parts)
    lane = min(0.12, 7.5 / (lanes * len(held.groups)))  # inches
    figure, (axes,) = sheet(len(held.groups) * (lanes * lane + 0.06) + 1.1)
    for y, (name, width) in enumerate(held.groups.items()):
        axes.barh(y, 1, height=0.86, color="#f3f4f6", zorder=0)
        for n, part in enumerate(held.parts):
            runs = part.kept.get(name, [(0, width)])
            axes.broken_barh(
                [(start / width, (stop - start) / width) for start, stop in runs],
                (y - 0.43 + 0.86 * n / lanes, 0.86 / lanes),
                facecolor=COLOURS[n], hatch=HATCHES[n], edgecolor="white", linewidth=0.4,
            )  # fmt: skip
    _layers(axes, held)
    handles = [
        Patch(facecolor=COLOURS[n], hatch=HATCHES[n], edgecolor="white", label=_holders(part.sites))
        for n, part in enumerate(held.parts)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


def _coverage(held: CutsRecord) -> Figure:
    figure, (axes,) = sheet(max(min(0.26 * len(held.groups), 7.5), 1.3) + 0.9)
    counts = np.zeros((len(held.groups), STEPS), dtype=np.int64)
    for y, (name, width) in enumerate(held.groups.items()):
        channels = np.zeros(width, dtype=np.int64)
        for part in held.parts:
            for start, stop in part.kept.get(name, [(0, width)]):
                channels[start:stop] += len(part.sites)
        counts[y] = channels[np.arange(STEPS) * width // STEPS]
    image = axes.imshow(
        counts, aspect="auto", cmap="Greys", vmin=0, extent=(0, 1, len(held.groups) - 0.5, -0.5),
        interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(image, ax=axes, label="devices that hold it")
    _layers(axes, held)
    return figure


def _layers(axes: Axes, held: CutsRecord) -> None:
    names = [f"{drawable(name, 24)}  {width}" for name, width in held.groups.items()]
    axes.set_yticks(range(len(names)), names, fontsize=9 if len(names) <= 24 else 6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("channels of the layer")
    axes.tick_params(axis="y", length=0)


def _holders(sites: Sequence[str]) -> str:
    return drawable(sites[0], 14) + (f" and {len(sites) - 1} more" if len(sites) > 1 else "")
