"""Picture of each edge's accuracy at each stage, on its own classes and on all classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
)
from sheaf.runtime.result import Row

Score = Callable[[Row], float]
PANELS: tuple[tuple[str, Score], ...] = (
    ("on its own classes", lambda row: row.accuracy),
    ("on all classes", lambda row: row.accuracy_all),
)


def draw_gain(edges: Sequence[EdgeHistory]) -> Picture:
    """Draw a line for each edge from its first to its last accuracy; for many edges, their sorted gains."""
    return _each(edges) if len(edges) <= MAX_LISTED else _sorted(edges)


def _each(edges: Sequence[EdgeHistory]) -> Picture:
    figure, panels = new_figure(0.42 * len(edges) + 1.15, 1, 2, sharey=True)
    stages = list(dict.fromkeys(row.stage for edge in edges for row in edge.rows))
    for axes, (title, score) in zip(panels, PANELS, strict=True):
        for y, edge in enumerate(edges):
            _draw_edge(axes, y, [(stages.index(row.stage), score(row)) for row in edge.rows])
        values = [score(row) for edge in edges for row in edge.rows]
        set_accuracy_axis(axes, values, after=0.36)  # leaves room for the gains
        axes.set_xlabel(f"accuracy {title}")
        axes.set_ylim(len(edges) - 0.4, -0.6)
        axes.set_yticks(range(len(edges)), [printable_name(edge.site) for edge in edges])
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    handles = [
        Line2D(
            [], [], marker=MARKERS[n % len(MARKERS)], color=GREY, markerfacecolor=_fill(n, len(stages), GREY),
            linestyle="", markersize=_size(n, len(stages)), label=stage_label(stage),
        )
        for n, stage in enumerate(stages)
    ]  # fmt: skip
    if len(stages) > 1:
        handles.append(Line2D([], [], color=BLUE, linewidth=2.5, label="gained"))
        handles.append(Line2D([], [], color=VERMILLION, linewidth=2, linestyle=(0, (2, 1.2)), label="lost"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), columnspacing=1.4)
    numbers = "; ".join(
        f"{edge.site}: " + ", ".join(f"{stage_label(row.stage)} {row.accuracy:.4f}" for row in edge.rows)
        for edge in edges
    )
    return Picture(
        "gain",
        f"Accuracy of each edge at each stage. On its own classes: {numbers}.",
        "Each line goes from an edge's first accuracy to its last; the number is the difference in "
        "percentage points. "
        * (len(stages) > 1)
        + "Left: on the test images of the edge's own classes. Right: on the test images of all classes. "
        "The scales differ.",
        figure,
    )


def _draw_edge(axes: Axes, y: int, measured: Sequence[tuple[int, float]]) -> None:
    first, last = measured[0][1], measured[-1][1]
    lost = last < first
    colour = VERMILLION if lost else BLUE
    axes.plot(
        [first, last], [y, y], color=colour, linewidth=2 if lost else 2.5,
        linestyle=(0, (2, 1.2)) if lost else "-", zorder=2, solid_capstyle="butt",
    )  # fmt: skip
    steps = max(number for number, _ in measured) + 1
    values = [value for _, value in measured]
    axes.plot([min(values), max(values)], [y, y], color=GREY, linewidth=0.8, zorder=1)
    for number, value in measured:
        axes.plot(
            value, y, marker=MARKERS[number % len(MARKERS)], color=colour, zorder=3,
            markersize=_size(number, steps),
            markerfacecolor=_fill(number, steps, colour), markeredgewidth=1.4,
        )  # fmt: skip
    rightmost = max(values)
    text = f"{rightmost:.3f}" if len(measured) == 1 else format_points(last - first) + (" ▼" if lost else "")
    axes.annotate(
        text, (rightmost, y), (9, 0), textcoords="offset points", va="center", color=colour if lost else INK,
        fontweight="bold" if lost else "normal",
    )  # fmt: skip


def _size(number: int, steps: int) -> float:
    """Return the marker size. Later stages are smaller: markers at the same accuracy stay visible."""
    return 6 + 5 * (steps - 1 - number) / max(steps - 1, 1)


def _fill(number: int, steps: int, colour: str) -> str:
    """Return the marker's fill: hollow except for the last stage."""
    return "white" if number < steps - 1 else colour


def _sorted(edges: Sequence[EdgeHistory]) -> Picture:
    figure, panels = new_figure(3.4, 1, 2)
    stages = list(dict.fromkeys(row.stage for edge in edges for row in edge.rows))
    for axes, (title, score) in zip(panels, PANELS, strict=True):
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
        "All edges, from the largest loss to the largest gain, in percentage points between the first and "
        "the last measurement. Hatched: edges that lost accuracy.",
        figure,
    )


def _gains(axes: Axes, histories: Sequence[EdgeHistory], stages: Sequence[str], score: Score) -> None:
    for number, stage in enumerate(stages[1:], start=1):
        gains = sorted(
            100 * (score(row) - score(edge.first))
            for edge in histories
            for row in edge.rows
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
        axes.annotate(
            f"{lost:,} of {len(gains):,} lost", (0.03, 0.93), xycoords="axes fraction", va="top",
            color=VERMILLION if lost else INK, fontweight="bold",
        )  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("gain, percentage points")


def _curve(axes: Axes, values: Sequence[float]) -> None:
    axes.stairs(values, [*range(len(values) + 1)], fill=True, color=BLUE, alpha=0.75)
    axes.set_ylim(0, 1)
