"""Pictures for docs/measurements.md, drawn by ``python -m benchmarks.document``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from benchmarks.sections.drop import of_stage
from benchmarks.sections.taking_part import METHODS, SPLITS
from benchmarks.sections.taking_part import gains as gains_over_local
from sheaf.report.style import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PAPER, new_figure, picture_style

Rows = Sequence[Mapping[str, Any]]
FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
COMPARED = {"ecavg": ORANGE, "ecavg_plus": BLUE}
DROPPING = {"before update": (BLUE, "o", "edges before the update, own classes"),
            "averaged weights": (ORANGE, "s", "cloud from averaged weights = edges after the update"),
            "initial weights": (GREEN, "^", "cloud from initial weights")}  # fmt: skip
"""Stage -> colour, marker, label."""


def gains(rows: Rows) -> None:
    """``gains.svg``: what each edge of every seed gained, faithful ECAvg above, ``ecavg_plus`` below."""
    experiments = list(dict.fromkeys(row["experiment"] for row in rows))
    with picture_style():
        figure, panels = new_figure(0.95 * len(experiments) + 0.4, len(experiments), 1)
        for axes, experiment in zip(panels, experiments, strict=True):
            for place, (method, colour) in enumerate(COMPARED.items()):
                of = [row for row in rows if row["experiment"] == experiment and row["method"] == method]
                points = sorted(100 * gain for row in of for gain in row["gains"])
                # The points of a row stand a little apart, so that none hides another.
                heights = [place + 0.24 * ((n % 5) / 2 - 1) for n in range(len(points))]
                axes.plot(points, heights, "o", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)
                axes.vlines(statistics.mean(points), place - 0.4, place + 0.4, color=INK, linewidth=1.4)
            axes.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
            axes.set_yticks(range(len(COMPARED)), COMPARED)
            axes.set_ylim(len(COMPARED) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=FAINT, linewidth=0.6)
            axes.set_title(experiment)
        panels[-1].set_xlabel("gain of an edge on its own classes, percentage points; the bar is the mean")
        figure.savefig(FOLDER / "gains.svg", metadata={"Date": None})


def sharing(rows: Rows) -> None:
    """``sharing.svg``: accuracy of edges and cloud against the bytes that all send, as more is shared."""
    of = [row for row in rows if row["method"] == "ecavg_plus" or row["method"].endswith("shared")]
    swept = {row["experiment"] for row in of if row["method"] != "ecavg_plus"}
    of = [row for row in of if row["experiment"] in swept]
    runs = [[row for row in of if row["method"] == method] for method in {row["method"]: 0 for row in of}]
    runs.sort(key=lambda each: each[0]["bytes"])
    sent = [statistics.mean(row["bytes"] for row in each) / 1e6 for each in runs]
    with picture_style():
        figure, (axes,) = new_figure(2.9)
        for key, name, colour, marker in (
            ("mean_edge", "edges, mean, own classes", BLUE, "o"),
            ("worst_edge", "worst edge, own classes", BLUE, "v"),
            ("cloud_accuracy", "cloud, all classes", ORANGE, "s"),
        ):
            found = [[row[key] for row in each] for each in runs]
            axes.errorbar(
                sent, [statistics.mean(values) for values in found],
                [statistics.stdev(values) for values in found],
                color=colour, marker=marker, label=name, capsize=3,
                linestyle="--" if key == "worst_edge" else "-",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(sent, [f"{size:.1f}" for size in sent])
        axes.minorticks_off()
        axes.set_xlabel("sent by all edges, MB")
        axes.set_ylabel("accuracy")
        axes.grid(color=FAINT, linewidth=0.6)
        axes.legend(loc="lower right")
        figure.savefig(FOLDER / "sharing.svg", metadata={"Date": None})


def drop(rows: Rows) -> None:
    """``drop.svg``: accuracy before and after the cloud's update, against the width of the hidden layer."""
    shown = [row for row in rows if row["finetune"] == "sgd 1e-2"]
    widths = list(dict.fromkeys(row["hidden"] for row in shown))
    variants = list(dict.fromkeys((row["start"], row["edges"]) for row in shown))
    with picture_style():
        figure, panels = new_figure(4.6, 2, len(variants) // 2, sharex=True, sharey=True)
        for axes, (start, edges) in zip(panels, variants, strict=True):
            of = [row for row in shown if (row["start"], row["edges"]) == (start, edges)]
            for stage, (colour, marker, label) in DROPPING.items():
                values = [of_stage([row for row in of if row["hidden"] == width], stage) for width in widths]
                axes.errorbar(
                    widths, [statistics.mean(each) for each in values],
                    [statistics.stdev(each) for each in values],
                    color=colour, marker=marker, markersize=4, label=label, capsize=2, linewidth=1.2,
                )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.minorticks_off()
            axes.grid(color=FAINT, linewidth=0.6)
            axes.set_title(f"{start} start, edges {edges.capitalize()}", fontsize=8.5)
        for axes in panels[-2:]:
            axes.set_xlabel("hidden units")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=1)
        figure.savefig(FOLDER / "drop.svg", metadata={"Date": None})


def taking_part(rows: Rows) -> None:
    """``taking-part.svg``: the gain of an edge over training alone, on its own classes and on all."""
    groups = sorted({(row["weights"], row["edges"]) for row in rows})
    images = sorted({row["images"] for row in rows})
    with picture_style():
        figure, panels = new_figure(0.75 + 1.05 * len(groups), 1, 2, sharey=True)
        for axes, classes in zip(panels, ("own", "all"), strict=True):
            columns = [(method, count) for method in METHODS for count in images]
            measured = {method: gains_over_local(rows, method, classes) for method in METHODS}
            cells = [
                [measured[method].get((*group, count, split)) for method, count in columns]
                for group in groups
                for split in SPLITS
            ]
            _heat_map(
                axes, [[None if cell is None else statistics.mean(cell) for cell in row] for row in cells]
            )
            for line in range(1, len(METHODS)):
                axes.axvline(line * len(images) - 0.5, color=PAPER, linewidth=5)
            for line in range(1, len(groups)):
                axes.axhline(line * len(SPLITS) - 0.5, color=PAPER, linewidth=5)
            axes.set_xticks(range(len(columns)), [str(count) for _, count in columns])
            for place, method in enumerate(METHODS):
                axes.annotate(
                    method, ((place + 0.5) / len(METHODS), 1), (0, 4), xycoords="axes fraction",
                    textcoords="offset points", ha="center", fontsize=8.5, color=GREY,
                )  # fmt: skip
            axes.set_title(f"on {'its own' if classes == 'own' else 'all'} classes", pad=18)
            axes.set_xlabel("images an edge")
        labels = [f"{edges} edges, {weights}: {split}" if split == SPLITS[0] else split
                  for weights, edges in groups for split in SPLITS]  # fmt: skip
        panels[0].set_yticks(range(len(labels)), labels)
        figure.suptitle(
            "gain of an edge over training alone, percentage points; grey: not measured", fontsize=9.5
        )
        figure.savefig(FOLDER / "taking-part.svg", metadata={"Date": None})


def _heat_map(axes: Axes, cells: Sequence[Sequence[float | None]]) -> None:
    """Draw cells with their numbers, gains blue and losses orange; a cell of None is grey."""
    limit = max(abs(cell) for row in cells for cell in row if cell is not None)
    colours = LinearSegmentedColormap.from_list("gain", (ORANGE, PAPER, BLUE)).with_extremes(bad=FAINT)
    values = [[float("nan") if cell is None else cell for cell in row] for row in cells]
    axes.imshow(values, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is not None:
                dark = cell > 0.6 * limit
                axes.text(x, y, f"{cell:+.1f}", ha="center", va="center", fontsize=7,
                          color=PAPER if dark else INK)  # fmt: skip
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
