"""The curves of a run on a fleet: accuracy by measurement, and loss by training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sheaf.fleets.remote.status import CallLoss, Measurement
from sheaf.report.stages import stage_label
from sheaf.report.style import BLUE, FAINT, VERMILLION, integer_ticks, picture_style, plain_ticks
from sheaf.report.svg import figure_svg, inline_svg, set_tooltip

SIZE = (5.6, 2.7)
"""Width and height of a picture in inches: two fit side by side into the page."""


def curves(measured: Sequence[Measurement], losses: Sequence[CallLoss]) -> list[str]:
    """Return the pictures as SVG for the page: accuracies, then losses; none for a kind without values."""
    own = [each for each in measured if not each.reference]
    with picture_style():
        return [
            *([_picture("accuracy", own, _accuracies)] if own else []),
            *([_picture("loss", losses, _losses)] if losses else []),
        ]


def _picture(name: str, values: Sequence[Any], draw: Any) -> str:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    alternative = draw(axes, values)
    axes.set_title(name, pad=8)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    integer_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.legend(loc="lower right" if name == "accuracy" else "upper right", fontsize=8.5)
    return inline_svg(figure_svg(figure), name, alternative)


def _accuracies(axes: Axes, measured: Sequence[Measurement]) -> str:
    at_edges = [(x, each.edges) for x, each in enumerate(measured, 1) if each.edges is not None]
    at_cloud = [(x, each.cloud) for x, each in enumerate(measured, 1) if each.cloud is not None]
    _band(axes, at_edges, "devices: mean, range", BLUE)
    if at_cloud:
        axes.plot(*zip(*at_cloud, strict=True), color=VERMILLION, label="cloud", **_marks(at_cloud))
    for x, each in enumerate(measured, 1):
        text = f"round {each.round}, {stage_label(each.stage)}:"
        if each.edges is not None:
            text += " devices {1:.4f} mean, {0:.4f} to {2:.4f}".format(*each.edges)
        if each.cloud is not None:
            text += f" cloud {each.cloud:.4f}"
        _describe(axes, x, len(measured), text)
    axes.set_xlabel("measurements")
    axes.margins(y=0.12)
    last = measured[-1]
    return f"Accuracy at {len(measured)} measurements, the last one {stage_label(last.stage)!r}."


def _losses(axes: Axes, losses: Sequence[CallLoss]) -> str:
    for at_cloud, name, colour in ((False, "devices: median, range", BLUE), (True, "cloud", VERMILLION)):
        points = [(x, each.losses) for x, each in enumerate(losses, 1) if each.at_cloud == at_cloud]
        _band(axes, points, name, colour)
    for x, each in enumerate(losses, 1):
        text = "loss {1:.4g} median, {0:.4g} to {2:.4g}".format(*each.losses)
        _describe(axes, x, len(losses), f"call {each.call}: {text}")
    axes.set_xlabel("trainings")
    axes.set_ylim(bottom=0)
    return f"Loss of the last step of {len(losses)} trainings, from the first to the latest."


def _band(
    axes: Axes, points: Sequence[tuple[int, tuple[float, float, float]]], label: str, colour: str
) -> None:
    """Draw the middle values as a line, and the range as a band."""
    if not points:
        return
    x = [position for position, _ in points]
    low, middle, high = zip(*(values for _, values in points), strict=True)
    if low != high:
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, middle, color=colour, label=label, **_marks(points))


def _marks(points: Sequence[Any]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 4, "markevery": max(1, len(points) // 12)}


def _describe(axes: Axes, x: int, count: int, text: str) -> None:
    """Give one position a tooltip, on an invisible area; of many positions, about a hundred have one."""
    step = -(-count // 100)
    if (x - 1) % step == 0:
        set_tooltip(axes.axvspan(x - 0.5, x - 0.5 + step, alpha=0, zorder=4), text)
