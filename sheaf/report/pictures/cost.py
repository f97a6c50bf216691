"""Picture of each device's cost, with the whole model's as reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sheaf.report.document import Picture
from sheaf.report.formatting import format_bytes, format_count
from sheaf.report.style import BLUE, INK, ORANGE, new_figure, printable_name
from sheaf.report.svg import set_tooltip
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import WholeModel

KINDS: Sequence[tuple[str, Callable[[SiteCost], float], Callable[[float], str]]] = (
    ("multiply-adds per image", lambda c: c.macs_per_example, format_count),
    ("multiply-adds in training", lambda c: c.train_macs, format_count),
    ("seconds", lambda c: c.seconds, lambda seconds: f"{seconds:.3g}"),
    ("bytes sent", lambda c: c.bytes_sent, format_bytes),
    ("bytes received", lambda c: c.bytes_received, format_bytes),
    ("peak memory", lambda c: c.peak_memory_bytes, format_bytes),
)
"""(title, value, text of the value)."""
COLUMNS = 3


def draw_cost(costs: Mapping[str, SiteCost], whole: WholeModel, cloud: str) -> Picture | None:
    """Draw a panel with a bar for each device, for each kind of cost in which the devices differ.

    Args:
        costs: label -> cost, the cloud's last.
        whole: the whole model.
        cloud: the cloud's label.

    Returns:
        The picture; None if the devices differ in no kind of cost.
    """
    labels = list(costs)
    edges = [cost for label, cost in costs.items() if label != cloud]
    equal = [kind for kind in KINDS if len({kind[2](kind[1](cost)) for cost in edges}) == 1]
    kinds = [kind for kind in KINDS if kind not in equal]
    if not kinds:
        return None
    columns = min(len(kinds), COLUMNS)
    rows = -(-len(kinds) // columns)
    figure, panels = new_figure(rows * (0.24 * len(labels) + 0.45), rows, columns, sharey=True)
    for axes in panels[len(kinds) :]:
        axes.remove()
    for axes, (title, value_of, text_of) in zip(panels, kinds, strict=False):
        values = [value_of(cost) for cost in costs.values()]
        per_image = title == "multiply-adds per image"
        top = max([*values, whole.macs_per_example if per_image else 0]) or 1
        for y, (label, value) in enumerate(zip(labels, values, strict=True)):
            at_cloud = label == cloud
            bars = axes.barh(
                y, value, height=0.66, color="white" if at_cloud else BLUE,
                edgecolor=ORANGE if at_cloud else BLUE, hatch="////" if at_cloud else "",
            )  # fmt: skip
            text = axes.annotate(
                text_of(value), (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8.5
            )
            for artist in (bars, text):
                set_tooltip(artist, f"{label}, {title}: {text_of(value)}")
        if per_image:
            axes.axvline(whole.macs_per_example, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set_title(title, fontsize=9.5)
        axes.set_xlim(0, 1.38 * top)
        axes.set_xticks([])
        axes.set_yticks(range(len(labels)), [printable_name(label, 22) for label in labels])
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.spines["bottom"].set_visible(False)
    numbers = "; ".join(
        f"{label}: {format_count(c.macs_per_example)} multiply-adds per image, "
        f"{format_count(c.train_macs)} in training, "
        f"{format_bytes(c.bytes_sent)} sent, {format_bytes(c.bytes_received)} received, {c.seconds:.1f} s, "
        f"{format_bytes(c.peak_memory_bytes)}"
        for label, c in costs.items()
    )
    same = ", ".join(f"{title} {text_of(value_of(edges[0]))}" for title, value_of, text_of in equal)
    return Picture(
        "cost",
        f"Cost by device. {numbers}. Whole model: {format_count(whole.macs_per_example)} multiply-adds per "
        "image.",
        "Filled bars: devices."
        + " Hatched bars: the cloud, whose bytes are the sums over all edges." * (cloud in costs)
        + " Dashed line: the whole model." * any(kind[0] == "multiply-adds per image" for kind in kinds)
        + (f" Equal on all devices, and not drawn: {same}." if same else ""),
        figure,
    )
