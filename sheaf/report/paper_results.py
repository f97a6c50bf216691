"""Compare runs with the results that a paper reports for the same experiment."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from sheaf.report.document import Section, Table
from sheaf.report.formatting import format_mean, format_number_of, format_points
from sheaf.report.pictures.paper import draw_paper
from sheaf.report.provenance import dataset_name, setting_value
from sheaf.report.stages import stage_label
from sheaf.runtime.result import Result, Row

Key = tuple[str, str]
"""(device, stage)."""


@cache
def paper_experiments() -> list[dict[str, Any]]:
    """Return the papers' experiments from ``papers.json``.

    A row is [device, stage, accuracy, precision, recall, F1].
    """
    content: list[dict[str, Any]] = json.loads(
        files("sheaf.report").joinpath("papers.json").read_text("utf-8")
    )
    return content


def matching_experiment(result: Result) -> Mapping[str, Any] | None:
    """Return the paper's experiment with the run's method, model, data (or its stand-in) and split."""
    model = str(setting_value(result, "model", "name")).partition("@")[0]
    holders = [sum(counts[k] > 0 for counts in result.split.values()) for k in range(len(result.classes))]
    for experiment in paper_experiments():
        data = (experiment["data"], *experiment["stand_ins"])
        if (
            (result.method, model) == (experiment["method"], experiment["model"])
            and dataset_name(result) in data
            and len(result.split) == experiment["edges"]
            and set(holders) == {1}
        ):
            return experiment
    return None


def paper_section(results: Sequence[Result]) -> Section | None:
    """Return the section that compares runs with a paper; None if they repeat no paper's experiment.

    Args:
        results: runs of one method that differ only in their seeds.
    """
    experiment = matching_experiment(results[0])
    if experiment is None:
        return None
    ours = _last_rows(results)
    theirs: dict[Key, list[float]] = {(row[0], row[1]): row[2:] for row in experiment["rows"]}
    common = {key: (ours[key], theirs[key][0]) for key in theirs if key in ours}
    if not common:
        return None
    difference = {
        key: statistics.mean(row.accuracy for row in rows) - paper for key, (rows, paper) in common.items()
    }
    largest = max(difference, key=lambda key: abs(difference[key]))
    higher = sum(value > 0 for value in difference.values())
    rows = []
    for key, key_rows in ours.items():
        paper = theirs.get(key)
        means = [
            statistics.mean(getattr(row, name) for row in key_rows) for name in ("precision", "recall", "f1")
        ]
        rows.append(
            (key[0], stage_label(key[1]), format_mean([row.accuracy for row in key_rows]),
             *(f"{mean:.4f}" for mean in means),
             *(["-"] * 4 if paper is None else [f"{value:.4f}" for value in paper]),
             format_points(difference[key]) if key in difference else "-")
        )  # fmt: skip
    columns = ("accuracy", "precision", "recall", "F1")
    headings = ("device", "stage", *columns, *(f"paper's {name}" for name in columns), "difference, points")
    seeds = f"; mean ± standard deviation over {len(results)} seeds" if len(results) > 1 else ""
    return Section(
        id="paper",
        title="Comparison with the paper",
        finding=f"Our accuracy is higher than the paper's in {higher} of "
        f"{format_number_of(len(difference), 'row')}. The largest difference is "
        f"{format_points(difference[largest])} points ({largest[0]}, {stage_label(largest[1])}).",
        pictures=[
            draw_paper(
                {key: [row.accuracy for row in rows] for key, (rows, _) in common.items()},
                {key: paper for key, (_, paper) in common.items()},
            )
        ],
        tables=[
            Table(f"Our results and the paper's, on own classes{seeds}", headings, rows, text_columns=2)
        ],
        notes=[
            f"{experiment['paper']}, experiment {experiment['experiment']}. {experiment['address']}",
            *setup_differences(results[0], experiment),
        ],
    )  # fmt: skip


def _last_rows(results: Sequence[Result]) -> dict[Key, list[Row]]:
    """Return (device, stage) -> its last row in each run."""
    rows: dict[Key, list[Row]] = {}
    for result in results:
        for key, row in {(row.site, row.stage): row for row in result.rows}.items():
            rows.setdefault(key, []).append(row)
    return rows


def setup_differences(result: Result, experiment: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each setting that differs from the paper's or that the paper does not state."""
    dataset, images = dataset_name(result), sum(map(sum, result.split.values()))
    if dataset != experiment["data"]:
        yield (
            f"Data: {dataset}, a stand-in with as many classes and images; it is not {experiment['data']}."
        )
    yield from experiment["notes"]
    if images != experiment["train_images"]:
        held_out = setting_value(result, "data", "held_out")
        yield f"Training images: {images:,} here, {experiment['train_images']:,} in the paper" + (
            f" (each edge holds out {held_out:.0%} of its images for its own decisions)." if held_out else "."
        )
    model = str(setting_value(result, "model", "name"))
    weights = setting_value(result, "model", "weights") or ""
    if "@" in model:
        yield f"Model: {model}, whose stem is adapted to small images; the paper mentions no such change."
    if weights != experiment["weights"]:
        names = {"": "random weights", "imagenet": "ImageNet weights"}
        yield (
            f"Initial weights: {names.get(weights, weights)} here, {names[experiment['weights']]} in the "
            "paper; the cloud's stage 'initial weights' starts from these."
        )
    recipes = {
        name: r
        for name in ("pretrain", "finetune", "retrain")
        if (r := setting_value(result, "method", name))
    }
    used = "; ".join(
        f"{name}: {format_number_of(r['epochs'], 'epoch')}, {r['optimizer']}, learning rate {r['lr']}"
        for name, r in recipes.items()
    )
    yield f"Not stated in the paper: optimizer, learning rate, epochs. Here: {used}."
    yield "Not stated in the paper: which classes form the two halves. Here: by label, in order."
    rounds = setting_value(result, "method", "rounds")
    fraction = setting_value(result, "method", "share", "fraction")
    if rounds not in (None, 1):
        yield f"Rounds: {rounds} here, one in the paper."
    if fraction not in (None, 1):
        yield f"The cloud trains on {fraction:.0%} of the edges' images here, on all of them in the paper."
