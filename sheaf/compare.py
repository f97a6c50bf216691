"""Methods side by side: the same data, seeds and total of training, one run each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sheaf import runs
from sheaf.config import Experiment
from sheaf.errors import RunFolderError
from sheaf.record import Result
from sheaf.types import CLOUD
from sheaf.watch import Watch


@dataclass(frozen=True)
class Summary:
    """What a method came to over several seeds.

    ``mean_edge`` and ``worst_edge`` hold, for each seed, the accuracy on own classes with which the edges
    ended: their mean, and the least. ``cloud`` is the cloud's last accuracy on all classes; empty for a
    method that leaves no model there. ``bytes`` (sent by all sites) and multiply-adds are means over the
    seeds.
    """

    method: str
    seeds: int
    mean_edge: list[float]
    worst_edge: list[float]
    cloud: list[float]
    bytes: float
    edge_macs: float
    cloud_macs: float


def compare(
    experiment: Experiment,
    methods: Sequence[str],
    seeds: int,
    folder: Path,
    data: Path | None = None,
    watch: Callable[[str], Watch] | None = None,
) -> list[Summary]:
    """Runs every method with every seed, each in a folder of its own under ``folder``, and sums up.

    What was finished there before is not run again, and what was stopped goes on.

    Args:
        experiment: gives data, split, model, the first seed, and the budget.
        methods: names; see ``Experiment.with_method`` for how each gets its settings.
        seeds: how many, counted up from the experiment's.
        watch: makes what shows one run, from a line that says which.
    """
    planned = {method: experiment.with_method(method) for method in methods}
    results: dict[str, list[Result]] = {method: [] for method in methods}
    for seed in range(experiment.seed, experiment.seed + seeds):
        for method, settings in planned.items():
            shown = None if watch is None else watch(f"{method}, seed {seed}")
            place = folder / f"{method.replace(':', '.')}-{seed}"
            results[method].append(_one(replace(settings, seed=seed), place, data, shown))
    return [summarise(method, found) for method, found in results.items()]


def summarise(method: str, results: Sequence[Result]) -> Summary:
    """Sums up one method's runs."""
    edges = [list(_final_accuracies(result)) for result in results]
    clouds = [row.accuracy_all for result in results if (row := result.final(CLOUD))]
    spent: dict[str, Any] = {
        "bytes": [sum(cost.bytes_sent for cost in result.cost.values()) for result in results],
        "edge_macs": [
            sum(cost.train_macs for site, cost in result.cost.items() if site != CLOUD) for result in results
        ],
        "cloud_macs": [result.cost[CLOUD].train_macs for result in results],
    }
    return Summary(
        method=method,
        seeds=len(results),
        mean_edge=[sum(values) / len(values) for values in edges],
        worst_edge=[min(values) for values in edges],
        cloud=clouds,
        **{name: sum(values) / len(values) for name, values in spent.items()},
    )


def _one(experiment: Experiment, folder: Path, data: Path | None, watch: Watch | None) -> Result:
    if (folder / "experiment.toml").exists():
        if (folder / "experiment.toml").read_text() != experiment.toml():
            raise RunFolderError(f"{folder} holds a run with other settings; name another folder with --out")
        return runs.resume(folder, data=data, watch=watch)
    return runs.run(experiment, data=data, out=folder, watch=watch)


def _final_accuracies(result: Result) -> Iterator[float]:
    for site in result.split:
        row = result.final(site)
        assert row is not None, "every method measures its edges"
        yield row.accuracy
