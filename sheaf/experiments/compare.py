"""Compare methods on the same data, seeds and training budget, with one run per method and seed."""

from __future__ import annotations

import itertools
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sheaf.core.errors import RunFolderError
from sheaf.core.settings import plain
from sheaf.core.time_format import format_seconds
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.budget import Per, accuracy_within, predict, with_budget
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import Result


@dataclass(frozen=True)
class Summary:
    """The results of a method over several seeds.

    Attributes:
        method: its name.
        seeds: the number of seeds.
        mean_edge: for each seed, the mean over the edges of the final accuracy on own classes.
        worst_edge: for each seed, the lowest of these accuracies.
        cloud: for each seed, the final accuracy of the cloud on all classes; empty without a cloud model.
        bytes: the bytes sent by all sites, the start weights for the edges included; mean over the seeds.
        edge_macs: the multiply-adds of training on all edges, mean over the seeds.
        cloud_macs: the multiply-adds of training in the cloud, mean over the seeds.
        saved: for each edge, the multiply-adds per example of the whole model over those of its sub-model.
        saved_sum: the multiply-adds of training the whole model on every edge for the experiment's edge
            epochs, over ``edge_macs``; None if the edges did not train.
        saved_sum_with_cloud: the same over ``edge_macs + cloud_macs``.
        bytes_up: the bytes sent by the edges, mean over the seeds; None in a file of an older version.
        images: the training images sent by the edges, mean over the seeds; None if not recorded.
        changes: the changes, such as ``method.rounds=3``, that the user made to this method's settings.
        per: ``seconds``, ``bytes`` or ``joules``, if all methods had the same budget of it.
        budget: that budget.
        at_budget: for each seed, the last accuracy that was measured within the budget: of the cloud's model
            on all classes, or, without one, the mean of the edges on their own classes. A seed without a
            measurement within the budget has none.
    """

    method: str
    seeds: int
    mean_edge: list[float]
    worst_edge: list[float]
    cloud: list[float]
    bytes: float
    edge_macs: float
    cloud_macs: float
    saved: dict[str, float]
    saved_sum: float | None
    saved_sum_with_cloud: float
    bytes_up: float | None = None
    images: float | None = None
    changes: list[str] = field(default_factory=list)
    per: str | None = None
    budget: float | None = None
    at_budget: list[float] = field(default_factory=list)


def compare(
    experiment: Experiment,
    methods: Sequence[str],
    seeds: int,
    folder: Path,
    data: Path | None = None,
    observer: Callable[[str, Path], Observer] | None = None,
    sweep: Mapping[str, Experiment] | None = None,
    changes: Sequence[str] = (),
    per: Per | None = None,
    budget: float | None = None,
) -> list[Summary]:
    """Run each method with each seed in its own folder under ``folder``, and return a summary of each method.

    Finished runs in that folder are read, and interrupted ones resumed.

    Args:
        experiment: sets data, split, model, the first seed and the budget.
        methods: the names of methods; ``Experiment.with_method`` chooses their settings.
        seeds: the number of seeds, counted up from the experiment's.
        folder: the folder of all runs.
        data: the directory in which named datasets are looked for first.
        observer: returns the observer of a run, from a title and the run's folder. The title has the number
            of the run and an estimate of the time left.
        sweep: label -> a variant of the experiment. Each method runs on each variant; once, if two variants
            give it the same settings.
        changes: the changes that the user made to the method of the experiment, for its summary.
        per: stop every method at the same budget of this, and rank them by their accuracy there.
        budget: that budget; by default what the experiment's own method spends.
    """
    if per is not None and budget is None:
        budget = predict(experiment, data)[per]
    planned: dict[str, Experiment] = {}
    for label, variant in (sweep or {"": experiment}).items():
        for method in methods:
            settings = replace(variant.with_method(method), baselines=())
            if per is not None and budget is not None:
                settings = with_budget(settings, per, budget, data)
            if settings not in planned.values():
                planned[f"{method} {label}".strip()] = settings
    results: dict[str, list[Result]] = {method: [] for method in planned}
    all_seeds = range(experiment.seed, experiment.seed + seeds)
    progress = Progress(len(all_seeds) * len(planned))
    for seed, method in itertools.product(all_seeds, planned):
        out = folder / f"{re.sub('[^A-Za-z0-9._=-]', '.', method)}-{seed}"
        with progress.run(finished=(out / "result.json").exists()) as number:
            own = None if observer is None else observer(f"{number}: {method}, seed {seed}", out)
            results[method].append(run_or_resume(replace(planned[method], seed=seed), out, data, own))
    epochs = experiment.method.budget.edge_epochs
    own_name = plain(experiment.method)["name"]
    summaries = [
        replace(
            summarise(method, results_of_it, epochs),
            changes=list(changes) if method.split()[0] == own_name else [],
        )
        for method, results_of_it in results.items()
    ]
    if per is None or budget is None:
        return summaries
    return ranked(summaries, results, per, budget)


def ranked(
    summaries: Sequence[Summary], results: Mapping[str, Sequence[Result]], per: Per, budget: float
) -> list[Summary]:
    """Return the summaries with the accuracies within a budget, the best method first."""
    measured = {}
    for method, of_method in results.items():
        accuracies = [accuracy_within(result, per, budget) for result in of_method]
        measured[method] = [accuracy for accuracy in accuracies if accuracy is not None]
    within = [
        replace(summary, per=per, budget=budget, at_budget=measured[summary.method]) for summary in summaries
    ]
    return sorted(within, key=lambda each: statistics.mean(each.at_budget or [0.0]), reverse=True)


class Progress:
    """Counts the runs of a comparison and estimates the time left, from the mean time of the runs so far.

    Args:
        total: the number of runs.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = 0
        self._seconds: list[float] = []

    @contextmanager
    def run(self, finished: bool) -> Iterator[str]:
        """Yield ``run 3 of 8, about 2 min left``; time the block unless the run is ``finished`` already."""
        self._begun += 1
        text = f"run {self._begun} of {self._total}"
        if self._seconds:
            left = statistics.mean(self._seconds) * (self._total - self._begun + 1)
            text += f", about {format_seconds(left)} left"
        started = time.monotonic()
        yield text
        if not finished:
            self._seconds.append(time.monotonic() - started)


def summarise(method: str, results: Sequence[Result], edge_epochs: int) -> Summary:
    """Return the summary of a method's runs.

    Args:
        method: its name.
        results: one result for each seed.
        edge_epochs: the epochs of the whole model on every edge with which the work is compared.
    """
    edges = [list(_final_accuracies(result)) for result in results]
    clouds = [row.accuracy for result in results if (row := result.final(CLOUD))]
    costs: dict[str, Any] = {
        "bytes": [sum(cost.bytes_sent for cost in result.cost.values()) for result in results],
        "bytes_up": [sum(result.cost[site].bytes_sent for site in result.split) for result in results],
        "edge_macs": [
            sum(cost.train_macs for site, cost in result.cost.items() if site != CLOUD) for result in results
        ],
        "cloud_macs": [result.cost[CLOUD].train_macs for result in results],
    }
    means = {name: sum(values) / len(values) for name, values in costs.items()}
    sent = [result.cost[site].samples_sent for result in results for site in result.split]
    counted = [count for count in sent if count is not None]
    first = results[0]
    images = sum(sum(counts) for counts in first.split.values())
    whole = edge_epochs * images * first.whole.train_macs_per_example
    return Summary(
        method=method,
        seeds=len(results),
        mean_edge=[sum(values) / len(values) for values in edges if values],
        worst_edge=[min(values) for values in edges if values],
        cloud=clouds,
        **means,
        images=sum(counted) / len(results) if len(counted) == len(sent) else None,
        saved={
            site: first.whole.macs_per_example / first.cost[site].macs_per_example for site in first.split
        },
        saved_sum=whole / means["edge_macs"] if means["edge_macs"] else None,
        saved_sum_with_cloud=whole / (means["edge_macs"] + means["cloud_macs"]),
    )


def run_or_resume(
    experiment: Experiment, folder: Path, data: Path | None = None, observer: Observer | None = None
) -> Result:
    """Return the result of the experiment in ``folder``: run it, resume it, or read its result.

    Raises:
        RunFolderError: the folder holds a run with other settings.
    """
    path = folder / "experiment.toml"
    if path.exists():
        # Parsed, because a file from an older version lacks newer settings.
        if load_experiment(path).toml() != experiment.toml():
            raise RunFolderError(f"{folder} holds a run with other settings; name another folder with --out")
        return runs.resume(folder, data=data, observer=observer)
    return runs.run(experiment, data=data, out=folder, observer=observer)


def _final_accuracies(result: Result) -> Iterator[float]:
    for site in result.split:
        row = result.final(site)
        if row is not None:  # an edge that was absent when the edges were measured has none
            yield row.accuracy
