"""Does averaging hurt an edge? ECAvg as published, each remedy alone, and all of them, beside their rivals.

An edge's gain is what it ends with, less what ECAvg's edge has ``before update`` at the same seed, both on
the test images of its own classes. Every method trains the same images, and no edge for more epochs than
ECAvg's.

Run: SHEAF_DATA=… python -m benchmarks.averaging FOLDER [EXPERIMENT…]
It goes on where it was stopped, and publishes what is finished of every experiment in FOLDER.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import publish
from sheaf.compare import run_or_resume
from sheaf.config import Experiment, load_experiment
from sheaf.record import Result
from sheaf.report.live import Live
from sheaf.types import CLOUD, Share

DIRICHLET = ("partition.name=dirichlet", "partition.edges=10", "partition.alpha=0.3")
SHARDS = ("partition.name=shards", "partition.edges=10", "partition.shards_per_edge=2")
DRAWN = ("data.limit=10000", "model.weights=")


@dataclass(frozen=True)
class Study:
    """One experiment of the study: which, how often, and whether each remedy is also taken alone."""

    source: str
    changes: tuple[str, ...]
    seeds: int
    remedies: bool = False


STUDIES = {
    "mnist, 2 edges, 5+5 classes": Study("ecavg-mnist", (), 5, remedies=True),
    "mnist, 10 edges, 2 classes each": Study("ecavg-mnist", SHARDS, 5),
    "mnist, 10 edges, Dirichlet 0.3": Study("ecavg-mnist", DIRICHLET, 5),
    "cifar10, 2 edges, 5+5 classes, drawn weights": Study("ecavg-cifar10", DRAWN, 3),
}
RIVALS = ("ecavg", "ecavg_plus", "fedavg", "local")
UNGUARDED = ("method.name=ecavg_plus", "method.restat=false", "method.mixtures=[]")
NO_REMEDY = (*UNGUARDED, "method.refit=none")
REMEDIES = {
    "ecavg, alpha 0.5": (*NO_REMEDY, "method.pretrain.alpha=0.5"),
    "ecavg, by_class": (*NO_REMEDY, "method.merge=by_class"),
    "ecavg, regmean": (*NO_REMEDY, "method.merge=regmean"),
    "ecavg, ridge": (*UNGUARDED, "method.refit.ridge=1e-3"),
    "ecavg, guard": (*NO_REMEDY, "method.mixtures=[0.2,0.4,0.6,0.8,1.0]"),
    "ecavg, annealed": (*NO_REMEDY, "method.finetune.schedule=cosine", "method.retrain.schedule=cosine"),
    "local, annealed": ("method=local", "method.train.epochs=10", "method.train.schedule=cosine"),
}
SHARED = (0.01, 0.05, 0.2)


def variants(study: Study) -> dict[str, Experiment]:
    """What is run of a study -> its experiment, seed 0."""
    base = load_experiment(study.source, study.changes)
    chosen = {method: base.with_method(method) for method in RIVALS}
    if study.remedies:
        for remedy, changes in REMEDIES.items():
            chosen[remedy] = load_experiment(study.source, (*study.changes, *changes))
        plus = chosen["ecavg_plus"]
        for fraction in SHARED:
            method = replace(plus.method, share=Share(fraction=fraction))
            chosen[f"ecavg_plus, {fraction:.0%} shared"] = replace(plus, method=method)
    return chosen


def row(experiment: str, method: str, seed: int, result: Result, faithful: Result) -> dict[str, Any]:
    """One row of the result file."""
    began = {row.site: row.accuracy for row in faithful.rows if row.stage == "before update"}
    ended = {site: final.accuracy for site in result.split if (final := result.final(site))}
    own = {row.site: row for row in result.rows if row.stage == "before update"}
    gains = [ended[site] - began[site] for site in began]
    worse = [site for site, before in own.items() if ended[site] < before.accuracy - standard_error(before)]
    clouds = {row.stage: row.accuracy_all for row in result.rows if row.site == CLOUD and not row.reference}
    return {
        "experiment": experiment,
        "method": method,
        "seed": seed,
        "worst_edge_gain": min(gains),
        "mean_edge_gain": statistics.mean(gains),
        "worst_edge": min(ended.values()),
        "mean_edge": statistics.mean(ended.values()),
        "edges_worse": len(worse) if own else None,
        "gains": [round(gain, 5) for gain in gains],
        "average": clouds.get("refitted", clouds.get("average")),
        "cloud_accuracy": list(clouds.values())[-1] if clouds else None,
        "bytes": sum(cost.bytes_sent for cost in result.cost.values()),
        "edge_macs": sum(cost.train_macs for site, cost in result.cost.items() if site != CLOUD),
        "cloud_macs": result.cost[CLOUD].train_macs,
    }


def standard_error(row: Any) -> float:
    """Of an accuracy, over the test images that it was measured on."""
    return float((row.accuracy * (1 - row.accuracy) / row.examples) ** 0.5)


def main() -> None:
    """Runs the experiments that are named, or all, and publishes ``averaging.json``."""
    console = Console(width=100)
    given, asked = Path(sys.argv[1]), sys.argv[2:] or list(STUDIES)
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    data: dict[str, str] = {}
    for name, study in STUDIES.items():
        for seed in range(study.seeds):
            results: dict[str, Result] = {}
            for method, experiment in variants(study).items():
                folder = given / f"{name}-{method}-{seed}".replace(" ", "_").replace("/", "-")
                if name in asked:
                    watch = Live(console, f"{name}: {method}, seed {seed}", rows=False)
                    run_or_resume(replace(experiment, seed=seed), folder, watch=watch)
                if not (folder / "result.json").exists():
                    continue
                results[method] = Result.read(folder)
                settings[f"{name}: {method}"] = results[method].provenance["settings"]
                data |= results[method].provenance["data"]
                rows.append(row(name, method, seed, results[method], results["ecavg"]))
    columns = ("experiment", "method", "seed", "worst_edge_gain", "mean_edge_gain", "cloud_accuracy")
    publish("averaging", rows, settings, 0, data, columns)


if __name__ == "__main__":
    main()
