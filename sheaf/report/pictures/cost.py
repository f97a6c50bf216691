"""What each device spent, beside the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sheaf.report.document import Picture
from sheaf.report.style import BLUE, INK, ORANGE, drawable, sheet
from sheaf.report.tables import count, size
from sheaf.runtime.result import SiteRecord, WholeModel


def cost(shown: Mapping[str, SiteRecord], whole: WholeModel, cloud: str) -> Picture:
    """A bar for each device in each of six panels. ``shown`` is label -> what it spent, the cloud's last."""
    labels = list(shown)
    figure, panels = sheet(2 * (0.24 * len(labels) + 0.45), 2, 3, sharey=True)
    kinds: Sequence[tuple[str, Callable[[SiteRecord], float], Callable[[float], str]]] = (
        ("multiply-adds an image", lambda c: c.macs_per_example, count),
        ("multiply-adds, training", lambda c: c.train_macs, count),
        ("seconds", lambda c: c.seconds, lambda seconds: f"{seconds:.3g}"),
        ("bytes sent", lambda c: c.bytes_sent, size),
        ("bytes received", lambda c: c.bytes_received, size),
        ("peak memory", lambda c: c.peak_memory_bytes, size),
    )
    for axes, (title, of, written) in zip(panels, kinds, strict=True):
        values = [of(spent) for spent in shown.values()]
        per_image = title == "multiply-adds an image"
        top = max([*values, whole.macs_per_example if per_image else 0]) or 1
        for y, (label, value) in enumerate(zip(labels, values, strict=True)):
            at_cloud = label == cloud
            axes.barh(
                y, value, height=0.66, color="white" if at_cloud else BLUE,
                edgecolor=ORANGE if at_cloud else BLUE, hatch="////" if at_cloud else "",
            )  # fmt: skip
            axes.annotate(
                written(value), (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        if per_image:
            axes.axvline(whole.macs_per_example, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set_title(title, fontsize=9.5)
        axes.set_xlim(0, 1.38 * top)
        axes.set_xticks([])
        axes.set_yticks(range(len(labels)), [drawable(label, 22) for label in labels])
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.spines["bottom"].set_visible(False)
    told = "; ".join(
        f"{label}: {count(c.macs_per_example)} an image, {count(c.train_macs)} in training, "
        f"{size(c.bytes_sent)} sent, {size(c.bytes_received)} received, {c.seconds:.1f} s, "
        f"{size(c.peak_memory_bytes)}"
        for label, c in shown.items()
    )
    return Picture(
        "cost",
        f"Cost by device. {told}. The whole model takes {count(whole.macs_per_example)} an image.",
        "Filled: devices; hatched: the cloud, whose bytes are the sums over all edges. The dashed line is "
        "the whole model. In one process, peak memory is the process's, the same for all who shared it.",
        figure,
    )
