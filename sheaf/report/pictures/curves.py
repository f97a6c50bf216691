"""Picture of learning curves: the loss of each epoch, one call after another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sheaf.core.types import CLOUD
from sheaf.report.document import Picture
from sheaf.report.stages import stage_label
from sheaf.report.style import (
    BLUE,
    COLOURS,
    DISTINCT,
    FAINT,
    GREY,
    INK,
    MARKERS,
    integer_ticks,
    legend_beside,
    new_figure,
    plain_ticks,
    printable_name,
)
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import Curve

MAX_LABELLED = 6
"""Most calls for which there is room for a label with the next stage."""

LABEL_WIDTH = 0.0125
"""Width of a label's character, as a fraction of the panel's width."""

MAX_TARGETS = 300
"""Most areas of a panel with a tooltip."""

Losses = Sequence[float | None]


def draw_curves(curves: Sequence[Curve]) -> Picture:
    """Draw the losses of the edges, and below them the cloud's, over the epochs of the run."""
    at_edges = [curve for curve in curves if CLOUD not in curve.losses]
    at_cloud = [curve for curve in curves if CLOUD in curve.losses]
    panels = [(title, part) for title, part in (("edges", at_edges), ("cloud", at_cloud)) if part]
    figure, all_axes = new_figure(2.5 * len(panels) + 0.2, len(panels), 1)
    for axes, (title, part) in zip(all_axes, panels, strict=True):
        _panel(axes, part)
        axes.set_title(title, pad=8)
    summarised = any(curve.spread for curve in curves)
    return Picture(
        "curves",
        "Mean training loss of each epoch. " + " ".join(_describe(curve) for curve in curves[:6]),
        "Mean training loss of each epoch. A dashed line marks the start of a training (omitted if each has "
        "one epoch); its label is the stage measured after it. "
        + "Line: the median edge; band: from the lowest to the highest edge. " * summarised
        + "Losses over different sets of classes are not comparable.",
        figure,
    )


def _panel(axes: Axes, trained: Sequence[Curve]) -> None:
    if len(trained) > 2 and all(_epochs(curve) == 1 for curve in trained):
        trained = [_joined(trained)]
    sites = list(dict.fromkeys(site for curve in trained for site in curve.losses))
    start, total, values = 0, sum(map(_epochs, trained)), []
    ends: list[float] = []  # of each row of labels, from the top: the end of its last label, in epochs
    for curve in trained:
        if curve.spread:
            values += _band(axes, curve, start)
        for site, losses in curve.losses.items():
            values += _line(axes, losses, start, sites.index(site), len(sites), curve.reference)
        if len(trained) <= 40:
            axes.axvline(start + 0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        if len(trained) <= MAX_LABELLED and curve.stage:
            label = stage_label(curve.stage, curve.reference)
            width = LABEL_WIDTH * len(label) * total
            right = start > 0 and start + width > total
            left = start - width if right else start
            row = next(n for n in range(len(ends) + 1) if n == len(ends) or ends[n] <= left)
            ends[row:] = [left + width, *ends[row + 1 :]]
            axes.annotate(
                label, (start + 0.5, 1), (-4 if right else 4, -2 - 12 * row),
                xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
                ha="right" if right else "left", fontsize=8.5, color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
            )  # fmt: skip
        start += _epochs(curve)
    if values and max(values) > 20 * max(min(values), 1e-9):
        axes.set_yscale("log")
    axes.set_xlim(0.5, start + 0.5)
    axes.margins(y=0.18)
    integer_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("epochs trained")
    axes.set_ylabel("loss")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    if 1 < len(sites) <= DISTINCT:
        handles = [
            Line2D([], [], color=COLOURS[n], marker=MARKERS[n], markersize=4, label=printable_name(site))
            for n, site in enumerate(sites)
        ]
        legend_beside(axes, handles=handles)
    _describe_epochs(axes, trained)


def _describe_epochs(axes: Axes, trained: Sequence[Curve]) -> None:
    """Give each epoch, or each of about ``MAX_TARGETS``, a tooltip with its losses, on an invisible area."""
    step = -(-sum(map(_epochs, trained)) // MAX_TARGETS)
    start = 0
    for curve in trained:
        for epoch in range(0, _epochs(curve), step):
            area = axes.axvspan(start + epoch + 0.5, start + epoch + step + 0.5, alpha=0, zorder=4)
            set_tooltip(area, f"epoch {start + epoch + 1}: {_losses_at(curve, epoch)}")
        start += _epochs(curve)


def _losses_at(curve: Curve, epoch: int) -> str:
    """Return the loss of each site in this epoch; of many sites, the lowest, the median and the highest."""
    if epoch < len(curve.spread):
        triple = curve.spread[epoch]
    else:
        losses = {site: all_[epoch] for site, all_ in curve.losses.items() if epoch < len(all_)}
        known = [loss for loss in losses.values() if loss is not None]
        if len(losses) <= DISTINCT or not known:
            return ", ".join(f"{site} {_loss(loss)}" for site, loss in losses.items())
        triple = (min(known), statistics.median(known), max(known))
    return "lowest {}, median {}, highest {}".format(*map(_loss, triple))


def _loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3g}"


def _epochs(curve: Curve) -> int:
    return max([len(curve.spread), *(len(losses) for losses in curve.losses.values())])


def _joined(trained: Sequence[Curve]) -> Curve:
    """Join trainings of one epoch each into one curve with a point for each."""
    sites = dict.fromkeys(site for curve in trained for site in curve.losses)
    return replace(
        trained[-1],
        losses={site: [curve.losses.get(site, [None])[0] for curve in trained] for site in sites},
        spread=[curve.spread[0] if curve.spread else (None, None, None) for curve in trained]
        if any(curve.spread for curve in trained)
        else [],
    )


def _line(axes: Axes, losses: Losses, start: int, number: int, sites: int, reference: bool) -> list[float]:
    epochs = [start + epoch for epoch in range(1, len(losses) + 1)]
    distinct = sites <= DISTINCT
    axes.plot(
        epochs, [math.nan if loss is None else loss for loss in losses],
        color=COLOURS[number] if distinct else BLUE, alpha=1 if distinct else 0.5,
        linewidth=1.5 if distinct else 0.9, linestyle=":" if reference else "-",
        marker=MARKERS[number] if distinct else ".", markersize=4, markevery=max(1, len(losses) // 12),
        markerfacecolor="white" if reference else None,
    )  # fmt: skip
    return [loss for loss in losses if loss is not None]


def _band(axes: Axes, curve: Curve, start: int) -> list[float]:
    low, middle, high = (
        [math.nan if value is None else value for value in column]
        for column in zip(*curve.spread, strict=True)
    )
    epochs = [start + epoch for epoch in range(1, len(middle) + 1)]
    axes.fill_between(epochs, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(epochs, middle, color=BLUE, marker="o", markersize=4, markevery=max(1, len(middle) // 12))
    return [value for value in (*low, *high) if not math.isnan(value)]


def _describe(curve: Curve) -> str:
    def ends(losses: Losses) -> str:
        return f"{losses[0]} to {losses[-1]}"

    stage = stage_label(curve.stage)
    if curve.spread:
        return f"{curve.sites} edges before {stage!r}: median {ends([m for _, m, _ in curve.spread])}."
    by_site: Mapping[str, Losses] = {site: losses for site, losses in curve.losses.items() if losses}
    losses = ", ".join(f"{site} {ends(by_site[site])}" for site in list(by_site)[:4])
    return f"Before {stage!r}: {losses}."
