"""Picture of each edge's accuracy at each stage, on its own classes and on all classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from sheaf.report.document import Picture
from sheaf.report.formatting import MAX_LISTED, format_points
from sheaf.report.history import EdgeHistory
from sheaf.report.stages import stage_label
from sheaf.report.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    MARKERS,
    VERMILLION,
    integer_ticks,
    new_figure,
    printable_name,
    set_accuracy_axis,
    text_column,
)
from sheaf.report.svg import set_tooltip
from sheaf.runtime.result import Row

Score = Callable[[Row], float]
PANELS: tuple[tuple[str, Score], ...] = (
    ("on its own classes", lambda row: row.accuracy),
    ("on all classes", lambda row: row.accuracy_all or 0.0),
)
DASHED = (0, (2, 1.2))
MAX_BARS = 100
"""Most areas with a tooltip in the picture of many edges."""


def draw_gain(edges: Sequence[EdgeHistory]) -> Picture:
    """Draw the accuracies of each edge, stage by stage; for many edges, their sorted gains."""
    return _each(edges) if len(edges) <= MAX_LISTED else _sorted(edges)


def _panels(edges: Sequence[EdgeHistory]) -> tuple[tuple[str, Score], ...]:
    """Return the panels: on all classes only if every edge measured it."""
    measured = all(row.accuracy_all is not None for edge in edges for row in edge.measured)
    return PANELS if measured else PANELS[:1]


def _each(edges: Sequence[EdgeHistory]) -> Picture:
    stages = list(dict.fromkeys(row.stage for edge in edges for row in edge.measured))
    references = {row.stage for edge in edges for row in edge.measured if row.reference}
    lane = 0.17 if len(edges) <= 8 else 0.13  # inches
    row_height = lane * len(stages) + 0.12
    shown = _panels(edges)
    figure, panels = new_figure(row_height * len(edges) + 1.1, 1, len(shown), sharey=True)
    for axes, (title, score) in zip(panels, shown, strict=True):
        changes = []
        for y, edge in enumerate(edges):
            heights = [y + (n - (len(stages) - 1) / 2) * lane / row_height for n in range(len(stages))]
            _draw_edge(axes, edge, score, stages, heights)
            if len(edge.measured) == 1:
                changes.append((heights[0], f"{score(edge.last):.3f}", INK))
            for row in edge.measured[1:]:
                change = score(row) - score(edge.before)
                lost = row is edge.last and change < 0
                colour = VERMILLION if lost else INK if row is edge.last else GREY
                text = format_points(change) + " ▼" * lost
                changes.append((heights[stages.index(row.stage)], text, colour))
        set_accuracy_axis(axes, [score(row) for edge in edges for row in edge.measured])
        text_column(axes, "gain" if len(stages) > 1 else "", changes)
        axes.set_xlabel(f"accuracy {title}")
        axes.set_ylim(len(edges) - 0.5, -0.5)
        axes.set_yticks(range(len(edges)), [printable_name(edge.site) for edge in edges])
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        for y in range(1, len(edges)):
            axes.axhline(y - 0.5, color=FAINT, linewidth=0.6, zorder=0)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
    handles = [
        Line2D(
            [], [], marker=MARKERS[n % len(MARKERS)], color=GREY, linestyle="", markersize=6,
            markerfacecolor=_fill(n, len(stages), GREY), label=stage_label(stage, stage in references),
        )
        for n, stage in enumerate(stages)
    ]  # fmt: skip
    if len(stages) > 1:
        handles.append(Line2D([], [], color=BLUE, linewidth=2.5, label="rise"))
        handles.append(Line2D([], [], color=VERMILLION, linewidth=2.5, linestyle=DASHED, label="fall"))
    figure.legend(handles=handles, loc="outside upper left", ncols=_columns(len(handles)), columnspacing=1.4)
    numbers = "; ".join(
        f"{edge.site}: " + ", ".join(f"{stage_label(row.stage)} {row.accuracy:.4f}" for row in edge.measured)
        for edge in edges
    )
    return Picture(
        "gain",
        f"Accuracy of each edge at each stage. On its own classes: {numbers}.",
        "Each edge's stages, from top to bottom. The number beside a stage is its gain over the first one, "
        "in percentage points; ▼ marks a loss at the end. "
        * (len(stages) > 1)
        + "The reference is an edge that trained alone, for as long. " * bool(references)
        + (
            "Left: on the test images of the edge's own classes. Right: on the test images of all classes. "
            "The scales differ."
            if len(shown) > 1
            else "On the test images of the edge's own classes."
        ),
        figure,
    )


def _columns(handles: int) -> int:
    """Return the number of a legend's columns: one row of up to five entries, or two rows."""
    return handles if handles <= 5 else -(-handles // 2)


def _draw_edge(
    axes: Axes, edge: EdgeHistory, score: Score, stages: Sequence[str], heights: Sequence[float]
) -> None:
    """Draw the edge's stages, one below the other, and a line for each change between its own stages."""
    rows = edge.measured
    values = [score(row) for row in rows]
    numbers = [stages.index(row.stage) for row in rows]
    lanes = [heights[number] for number in numbers]
    for n in range(1, len(values)):
        if rows[n - 1].reference:
            continue
        fall, equal = values[n] < values[n - 1], values[n] == values[n - 1]
        (line,) = axes.plot(
            values[n - 1 : n + 1], lanes[n - 1 : n + 1], linewidth=1.2 if equal else 2.5,
            color=GREY if equal else VERMILLION if fall else BLUE,
            linestyle=DASHED if fall else "-", zorder=2, solid_capstyle="butt", clip_on=False,
        )  # fmt: skip
        change = f"{format_points(values[n] - values[n - 1])} points"
        set_tooltip(line, f"{edge.site}, to '{stage_label(rows[n].stage)}': {change}")
    for row, value, number in zip(rows, values, numbers, strict=True):
        lost = row is edge.last and value < values[0]
        colour = GREY if row.reference else VERMILLION if lost else BLUE
        (marker,) = axes.plot(
            value, heights[number], marker=MARKERS[number % len(MARKERS)], color=colour, zorder=3,
            markersize=5.5, markerfacecolor=_fill(number, len(stages), colour), markeredgewidth=1.4,
            clip_on=False,
        )  # fmt: skip
        images = row.examples if score(row) == row.accuracy else sum(map(sum, row.confusion))
        change = f" ({format_points(value - values[0])} points)" if row is not edge.before else ""
        stage = stage_label(row.stage, row.reference)
        set_tooltip(marker, f"{edge.site}, {stage}: {value:.4f}, on {images:,} test images{change}")


def _fill(number: int, steps: int, colour: str) -> str:
    """Return the marker's fill: hollow except for the last stage."""
    return "white" if number < steps - 1 else colour


def _sorted(edges: Sequence[EdgeHistory]) -> Picture:
    shown = _panels(edges)
    figure, panels = new_figure(3.4, 1, len(shown))
    stages = list(dict.fromkeys(row.stage for edge in edges for row in edge.measured))
    for axes, (title, score) in zip(panels, shown, strict=True):
        axes.set_title(title)
        if len(stages) == 1:
            _curve(axes, sorted(score(edge.last) for edge in edges))
            axes.set_ylabel("accuracy")
        else:
            _gains(axes, edges, stages, score)
        axes.set_xlabel("edges, sorted by gain for each curve")
        axes.set_xlim(0, len(edges))
        integer_ticks(axes.xaxis)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
    handles: list[Artist] = [
        Line2D([], [], color=GREY, linestyle="--", label=stage_label(stage)) for stage in stages[1:-1]
    ]
    last_label = stage_label(stages[-1]) + (": gained" if stages[1:] else "")
    handles.append(Patch(facecolor=BLUE, edgecolor=INK, label=last_label))
    handles += [Patch(facecolor="white", edgecolor=VERMILLION, hatch="////", label="lost")] * bool(stages[1:])
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    lost = sum(edge.gain < 0 for edge in edges)
    return Picture(
        "gain",
        f"Sorted gains of {len(edges)} edges on own classes and on all; {lost} lost on their own classes.",
        "All edges, from the largest loss to the largest gain, in percentage points between "
        f"'{stage_label(stages[0])}' and the last measurement. Hatched: edges that lost accuracy.",
        figure,
    )


def _gains(axes: Axes, histories: Sequence[EdgeHistory], stages: Sequence[str], score: Score) -> None:
    for number, stage in enumerate(stages[1:], start=1):
        gains = sorted(
            100 * (score(row) - score(edge.before))
            for edge in histories
            for row in edge.measured
            if row.stage == stage
        )
        edges = [*range(len(gains) + 1)]
        if number < len(stages) - 1:
            axes.stairs(gains, edges, baseline=None, color=GREY, linestyle="--")
            continue
        lost = sum(gain < 0 for gain in gains)
        axes.stairs(gains, edges, baseline=None, color=INK, linewidth=1.2)
        axes.stairs(gains[lost:], edges[lost:], fill=True, color=BLUE, alpha=0.75)
        if lost:
            axes.stairs(
                gains[:lost], edges[: lost + 1], fill=True, facecolor="white", edgecolor=VERMILLION,
                hatch="////",
            )  # fmt: skip
        axes.set_title(f"{axes.get_title(loc='left')}: {lost:,} of {len(gains):,} lost")
        _describe_ranges(axes, gains, lambda gain: f"{format_points(gain / 100)} points")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("gain, percentage points")


def _curve(axes: Axes, values: Sequence[float]) -> None:
    axes.stairs(values, [*range(len(values) + 1)], fill=True, color=BLUE, alpha=0.75)
    axes.set_ylim(0, 1)
    _describe_ranges(axes, values, "{:.4f}".format)


def _describe_ranges(axes: Axes, values: Sequence[float], text_of: Callable[[float], str]) -> None:
    """Give the sorted values tooltips, on invisible areas of one or several edges each."""
    step = -(-len(values) // MAX_BARS)
    low, high = axes.get_ylim()
    for start in range(0, len(values), step):
        part = values[start : start + step]
        area = Rectangle((start, low), len(part), high - low, alpha=0)
        ends = dict.fromkeys((text_of(part[0]), text_of(part[-1])))
        edges = f"edge {start + 1:,}" if len(part) == 1 else f"edges {start + 1:,} to {start + len(part):,}"
        set_tooltip(area, f"{edges} of {len(values):,}: {' to '.join(ends)}")
        axes.add_patch(area)
