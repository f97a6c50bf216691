"""Methods side by side: the same data, seeds and total of training, one run each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sheaf.core.errors import RunFolderError
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import Result


@dataclass(frozen=True)
class Summary:
    """What a method came to over several seeds.

    ``mean_edge`` and ``worst_edge`` hold, for each seed, the accuracy on own classes with which the edges
    ended: their mean, and the least. ``cloud`` is the cloud's last accuracy on all classes; empty for a
    method that leaves no model there. ``bytes`` (sent by all sites) and multiply-adds are means over the
    seeds.

    ``saved`` is, for each edge, multiply-adds an example of the whole model over those of its own part.
    ``saved_sum`` is what training the whole model on every edge would take, for the experiment's edge epochs,
    over what the edges did take (None where they trained nothing); ``saved_sum_with_cloud`` is the same over
    the edges' and the cloud's work together.
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


def compare(
    experiment: Experiment,
    methods: Sequence[str],
    seeds: int,
    folder: Path,
    data: Path | None = None,
    observer: Callable[[str, Path], Observer] | None = None,
    sweep: Mapping[str, Experiment] | None = None,
) -> list[Summary]:
    """Runs every method with every seed, each in a folder of its own under ``folder``, and sums up.

    What was finished there before is not run again, and what was stopped goes on.

    Args:
        experiment: gives data, split, model, the first seed, and the budget.
        methods: names; see ``Experiment.with_method`` for how each gets its settings.
        seeds: how many, counted up from the experiment's.
        observer: makes what shows one run, from a line that says which and the run's folder.
        sweep: several variants of the experiment, each by what is said of it beside a method's name. Every
            method is run on each; once, where they make no difference to it.
    """
    planned: dict[str, Experiment] = {}
    for said, variant in (sweep or {"": experiment}).items():
        for method in methods:
            settings = variant.with_method(method)
            if settings not in planned.values():
                planned[f"{method} {said}".strip()] = settings
    results: dict[str, list[Result]] = {method: [] for method in planned}
    for seed in range(experiment.seed, experiment.seed + seeds):
        for method, settings in planned.items():
            place = folder / f"{re.sub('[^A-Za-z0-9._=-]', '.', method)}-{seed}"
            shown = None if observer is None else observer(f"{method}, seed {seed}", place)
            results[method].append(run_or_resume(replace(settings, seed=seed), place, data, shown))
    epochs = experiment.method.budget.edge_epochs
    return [summarise(method, found, epochs) for method, found in results.items()]


def summarise(method: str, results: Sequence[Result], edge_epochs: int) -> Summary:
    """Sums up one method's runs; ``edge_epochs`` is what the whole model would train on every edge."""
    edges = [list(_final_accuracies(result)) for result in results]
    clouds = [row.accuracy_all for result in results if (row := result.final(CLOUD))]
    spent: dict[str, Any] = {
        "bytes": [sum(cost.bytes_sent for cost in result.cost.values()) for result in results],
        "edge_macs": [
            sum(cost.train_macs for site, cost in result.cost.items() if site != CLOUD) for result in results
        ],
        "cloud_macs": [result.cost[CLOUD].train_macs for result in results],
    }
    means = {name: sum(values) / len(values) for name, values in spent.items()}
    first = results[0]
    images = sum(sum(counts) for counts in first.split.values())
    whole = edge_epochs * images * first.whole.train_macs_per_example
    return Summary(
        method=method,
        seeds=len(results),
        mean_edge=[sum(values) / len(values) for values in edges],
        worst_edge=[min(values) for values in edges],
        cloud=clouds,
        **means,
        saved={
            site: first.whole.macs_per_example / first.cost[site].macs_per_example for site in first.split
        },
        saved_sum=whole / means["edge_macs"] if means["edge_macs"] else None,
        saved_sum_with_cloud=whole / (means["edge_macs"] + means["cloud_macs"]),
    )


def run_or_resume(
    experiment: Experiment, folder: Path, data: Path | None = None, observer: Observer | None = None
) -> Result:
    """The result of the experiment in ``folder``: run there now, gone on with, or read.

    Raises:
        RunFolderError: the folder holds a run with other settings.
    """
    there = folder / "experiment.toml"
    if there.exists():
        if load_experiment(there).toml() != experiment.toml():  # read: it may be older than a new setting
            raise RunFolderError(f"{folder} holds a run with other settings; name another folder with --out")
        return runs.resume(folder, data=data, observer=observer)
    return runs.run(experiment, data=data, out=folder, observer=observer)


def _final_accuracies(result: Result) -> Iterator[float]:
    for site in result.split:
        row = result.final(site)
        assert row is not None, "every method measures its edges"
        yield row.accuracy
