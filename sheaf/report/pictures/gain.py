"""What each edge gained: before, after the update, after retraining; on its own classes and on all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sheaf.report.document import Picture
from sheaf.report.stages import Way
from sheaf.report.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    MARKERS,
    VERMILLION,
    accuracies,
    drawable,
    sheet,
    whole_numbers,
)
from sheaf.report.tables import MANY
from sheaf.report.words import points
from sheaf.runtime.result import Row

Score = Callable[[Row], float]
PANELS: tuple[tuple[str, Score], ...] = (
    ("on its own classes", lambda row: row.accuracy),
    ("on all classes", lambda row: row.accuracy_all),
)


def gain(ways: Sequence[Way]) -> Picture:
    """A line for each edge, from where it began to where it ended; sorted curves where there are many."""
    return _each(ways) if len(ways) <= MANY else _sorted(ways)


def _each(ways: Sequence[Way]) -> Picture:
    figure, panels = sheet(0.42 * len(ways) + 1.15, 1, 2, sharey=True)
    stages = list(dict.fromkeys(row.stage for way in ways for row in way.rows))
    for axes, (title, score) in zip(panels, PANELS, strict=True):
        for y, way in enumerate(ways):
            _way(axes, y, [(stages.index(row.stage), score(row)) for row in way.rows])
        values = [score(row) for way in ways for row in way.rows]
        accuracies(axes, values, after=0.36)  # room for what each gained
        axes.set_xlabel(f"accuracy {title}")
        axes.set_ylim(len(ways) - 0.4, -0.6)
        axes.set_yticks(range(len(ways)), [drawable(way.site) for way in ways])
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    handles = [
        Line2D(
            [], [], marker=MARKERS[n % len(MARKERS)], color=GREY, markerfacecolor=_fill(n, len(stages), GREY),
            linestyle="", markersize=_size(n, len(stages)), label=stage,
        )
        for n, stage in enumerate(stages)
    ]  # fmt: skip
    if len(stages) > 1:
        handles.append(Line2D([], [], color=BLUE, linewidth=2.5, label="gained"))
        handles.append(Line2D([], [], color=VERMILLION, linewidth=2, linestyle=(0, (2, 1.2)), label="lost"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), columnspacing=1.4)
    told = "; ".join(
        f"{way.site}: " + ", ".join(f"{row.stage} {row.accuracy:.4f}" for row in way.rows) for way in ways
    )
    return Picture(
        "gain",
        f"Accuracy of each edge at each step. On its own classes: {told}.",
        "Each line leads from an edge's first measurement to its last; the figure beside it is the "
        "difference in percentage points. "
        * (len(stages) > 1)
        + "Left on the test images of the edge's own classes, right on those "
        "of all classes. The scales differ.",
        figure,
    )


def _way(axes: Axes, y: int, reached: Sequence[tuple[int, float]]) -> None:
    first, last = reached[0][1], reached[-1][1]
    lost = last < first
    colour = VERMILLION if lost else BLUE
    axes.plot(
        [first, last], [y, y], color=colour, linewidth=2 if lost else 2.5,
        linestyle=(0, (2, 1.2)) if lost else "-", zorder=2, solid_capstyle="butt",
    )  # fmt: skip
    steps = max(number for number, _ in reached) + 1
    values = [value for _, value in reached]
    axes.plot([min(values), max(values)], [y, y], color=GREY, linewidth=0.8, zorder=1)  # the steps between
    for number, value in reached:
        axes.plot(
            value, y, marker=MARKERS[number % len(MARKERS)], color=colour, zorder=3,
            markersize=_size(number, steps),
            markerfacecolor=_fill(number, steps, colour), markeredgewidth=1.4,
        )  # fmt: skip
    rightmost = max(values)
    said = f"{rightmost:.3f}" if len(reached) == 1 else points(last - first) + (" ▼" if lost else "")
    axes.annotate(
        said, (rightmost, y), (9, 0), textcoords="offset points", va="center", color=colour if lost else INK,
        fontweight="bold" if lost else "normal",
    )  # fmt: skip


def _size(number: int, steps: int) -> float:
    """Later steps are smaller: where nothing changed, they stand within the earlier ones."""
    return 6 + 5 * (steps - 1 - number) / max(steps - 1, 1)


def _fill(number: int, steps: int, colour: str) -> str:
    """The first step is hollow, the last one full."""
    return "white" if number < steps - 1 else colour


def _sorted(ways: Sequence[Way]) -> Picture:
    figure, panels = sheet(3.4, 1, 2)
    stages = list(dict.fromkeys(row.stage for way in ways for row in way.rows))
    for axes, (title, score) in zip(panels, PANELS, strict=True):
        axes.set_title(title)
        if len(stages) == 1:
            _curve(axes, sorted(score(way.last) for way in ways))
            axes.set_ylabel("accuracy")
        else:
            _gains(axes, ways, stages, score)
        axes.set_xlabel("edges, each curve in its own order")
        axes.set_xlim(0, len(ways))
        whole_numbers(axes.xaxis)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
    handles: list[Artist] = [
        Line2D([], [], color=GREY, linestyle="--", label=stage) for stage in stages[1:-1]
    ]
    handles.append(
        Patch(facecolor=BLUE, edgecolor=INK, label=f"{stages[-1]}: gained" if stages[1:] else stages[0])
    )
    handles += [Patch(facecolor="white", edgecolor=VERMILLION, hatch="////", label="lost")] * bool(stages[1:])
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    lost = sum(way.gain < 0 for way in ways)
    return Picture(
        "gain",
        f"Gains of {len(ways)} edges in order, on own classes and on all; {lost} lost on their own classes.",
        "All edges side by side, from the one that lost most to the one that gained most, in percentage "
        "points between first and last measurement; hatched are those that lost.",
        figure,
    )


def _gains(axes: Axes, ways: Sequence[Way], stages: Sequence[str], score: Score) -> None:
    for number, stage in enumerate(stages[1:], start=1):
        gains = sorted(
            100 * (score(row) - score(way.first)) for way in ways for row in way.rows if row.stage == stage
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
