"""A paper's own figures beside ours, where an experiment is the paper's, and what differs in the set-up."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from sheaf.report.document import Section, Table
from sheaf.report.intervals import with_interval
from sheaf.report.origin import data_name, setting
from sheaf.report.pictures.paper import paper
from sheaf.report.words import points, some
from sheaf.runtime.result import Result, Row

Key = tuple[str, str]
"""A device and a step."""


@cache
def known() -> list[dict[str, Any]]:
    """The papers' experiments, from ``papers.json``; a row: device, step, accuracy, precision, recall, F1."""
    content: list[dict[str, Any]] = json.loads(
        files("sheaf.report").joinpath("papers.json").read_text("utf-8")
    )
    return content


def experiment_of(result: Result) -> Mapping[str, Any] | None:
    """The paper's experiment that a run repeats: the same method, model, data (or its stand-in) and split."""
    model = str(setting(result, "model", "name")).partition("@")[0]
    holders = [sum(counts[k] > 0 for counts in result.split.values()) for k in range(len(result.classes))]
    for experiment in known():
        data = (experiment["data"], *experiment["stand_ins"])
        if (
            (result.method, model) == (experiment["method"], experiment["model"])
            and data_name(result) in data
            and len(result.split) == experiment["edges"]
            and set(holders) == {1}
        ):
            return experiment
    return None


def beside_the_paper(results: Sequence[Result]) -> Section | None:
    """The section, if these runs of one method (with different seeds) repeat a paper's experiment."""
    experiment = experiment_of(results[0])
    if experiment is None:
        return None
    ours = _ours(results)
    theirs: dict[Key, list[float]] = {(row[0], row[1]): row[2:] for row in experiment["rows"]}
    both = {key: (ours[key], theirs[key][0]) for key in theirs if key in ours}
    if not both:
        return None
    apart = {
        key: statistics.mean(row.accuracy for row in rows) - figure for key, (rows, figure) in both.items()
    }
    furthest = max(apart, key=lambda key: abs(apart[key]))
    above = sum(difference > 0 for difference in apart.values())
    rows = []
    for key, of in ours.items():
        figure = theirs.get(key)
        means = [statistics.mean(getattr(row, name) for row in of) for name in ("precision", "recall", "f1")]
        rows.append(
            (*key, with_interval([row.accuracy for row in of]), *(f"{mean:.4f}" for mean in means),
             *(["-"] * 4 if figure is None else [f"{value:.4f}" for value in figure]),
             points(apart[key]) if key in apart else "-")
        )  # fmt: skip
    columns = ("accuracy", "precision", "recall", "F1")
    headings = ("device", "step", *columns, *(f"paper's {name}" for name in columns), "points apart")
    seeds = f", mean over {len(results)} seeds ± half of its 95 % interval" if len(results) > 1 else ""
    return Section(
        id="paper",
        title="Beside the paper",
        finding=f"Ours is above the paper's accuracy in {above} of {some(len(apart), 'row')}; furthest "
        f"apart are they at {' '.join(furthest)} ({points(apart[furthest])} points).",
        pictures=[
            paper(
                {key: [row.accuracy for row in of] for key, (of, _) in both.items()},
                {key: figure for key, (_, figure) in both.items()},
            )
        ],
        tables=[
            Table(f"Ours (accuracy on own classes{seeds}) and the paper's", headings, rows, words=2)
        ],
        notes=[
            f"{experiment['paper']}, experiment {experiment['experiment']}. {experiment['address']}",
            *differences(results[0], experiment),
        ],
    )  # fmt: skip


def _ours(results: Sequence[Result]) -> dict[Key, list[Row]]:
    """Device and step -> its last row in each run."""
    ours: dict[Key, list[Row]] = {}
    for result in results:
        for key, row in {(row.site, row.stage): row for row in result.rows}.items():
            ours.setdefault(key, []).append(row)
    return ours


def differences(result: Result, experiment: Mapping[str, Any]) -> Iterator[str]:
    """What is not as in the paper, or not stated there; a sentence each."""
    used, images = data_name(result), sum(map(sum, result.split.values()))
    if used != experiment["data"]:
        yield f"Data: {used}, a stand-in with as many classes and images; it is not {experiment['data']}."
    yield from experiment["notes"]
    if images != experiment["train_images"]:
        kept = setting(result, "data", "held_out")
        yield f"Images: {images:,} train here, {experiment['train_images']:,} in the paper" + (
            f" ({kept:.0%} of each edge's are held out for its own decisions)." if kept else "."
        )
    model, weights = str(setting(result, "model", "name")), setting(result, "model", "weights") or ""
    if "@" in model:
        yield f"Model: {model}, whose stem is adapted to small images; the paper's is not said to be."
    if weights != experiment["weights"]:
        names = {"": "drawn weights", "imagenet": "ImageNet's weights"}
        yield (
            f"Start: from {names.get(weights, weights)}, the paper's from {names[experiment['weights']]}; "
            "these are what its cloud's 'initial weights' mean."
        )
    recipes = {
        name: r for name in ("pretrain", "finetune", "retrain") if (r := setting(result, "method", name))
    }
    said = "; ".join(
        f"{name} {r['epochs']} epochs of {r['optimizer']}, {r['lr']}" for name, r in recipes.items()
    )
    yield f"Not stated in the paper: optimizer, learning rate, epochs. Here: {said}."
    yield "Not stated in the paper: which classes form the two halves. Here: by label, in order."
    rounds, share = setting(result, "method", "rounds"), setting(result, "method", "share", "fraction")
    if rounds not in (None, 1):
        yield f"Rounds: {rounds} here, one in the paper."
    if share not in (None, 1):
        yield f"The cloud trains on {share:.0%} of the edges' images here, on all in the paper."
