"""Measure whether averaging harms an edge: ECAvg as published, each remedy alone, all remedies, and rivals.

The gain of an edge is its final accuracy minus that of ECAvg's edge ``before update`` at the same seed,
both on the test images of its own classes. All methods train on the same images, and no edge for more
epochs than ECAvg's. The models are MobileNetV2 at half width on CIFAR-10 and on a hundred classes of Tiny
ImageNet. Pre-trained models were trained on the other hundred classes (50,000 images) for eight epochs;
edges and cloud then train for 3+3+3 epochs.

Run: SHEAF_DATA=… python -m benchmarks.averaging FOLDER [EXPERIMENT…]
Resumes interrupted runs, and publishes the finished ones of every experiment in FOLDER; each row has its
commit.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import publish
from sheaf.core.recipe import Share
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.report.live import Live
from sheaf.runtime.result import Result

CONSOLE = Console(width=100)
DIRICHLET = ("partition.name=dirichlet", "partition.edges=10", "partition.alpha=0.3")
SHARDS = ("partition.name=shards", "partition.edges=10", "partition.shards_per_edge=2")
FAITHFUL = ("method.reference=false",)
HALF = ("data.limit=10000", "model.options.width_mult=0.5")
DRAWN = (*HALF, "model.weights=")
SHORT = (*FAITHFUL, *HALF, *(f"method.{step}.epochs=3" for step in ("pretrain", "finetune", "retrain")))
A = "tinyimagenet32-a"
B = "tinyimagenet32-b"
"""Two halves of Tiny ImageNet's classes, at 32x32: folders in $SHEAF_DATA."""


@dataclass(frozen=True)
class Study:
    """One experiment of the study: settings, number of seeds, initial weights.

    ``remedies``: each remedy alone too. ``sharing``: the best with fewer images shared too.
    """

    source: str
    changes: tuple[str, ...]
    seeds: int
    pretrained: bool = False
    remedies: bool = False
    sharing: bool = False
    folder: str | None = None


STUDIES = {
    "mnist, 2 edges, 5+5 classes": Study("ecavg-mnist", FAITHFUL, 5, remedies=True, sharing=True),
    "mnist, 10 edges, 2 classes each": Study("ecavg-mnist", FAITHFUL + SHARDS, 5),
    "mnist, 10 edges, Dirichlet 0.3": Study("ecavg-mnist", FAITHFUL + DIRICHLET, 5),
    "cifar10, 2 edges, 5+5 classes, drawn weights": Study("ecavg-cifar10", FAITHFUL + DRAWN, 3),
    "cifar10, 2 edges, 5+5 classes, pre-trained": Study(
        "ecavg-cifar10", SHORT, 3, pretrained=True, remedies=True
    ),
    "cifar10, 10 edges, 2 classes each, pre-trained": Study(
        "ecavg-cifar10", SHORT + SHARDS, 5, pretrained=True
    ),
    "cifar10, 10 edges, Dirichlet 0.3, pre-trained": Study(
        "ecavg-cifar10", SHORT + DIRICHLET, 3, pretrained=True
    ),
    "100 classes of Tiny ImageNet, 2 edges, 50+50, pre-trained": Study(
        "ecavg-cifar10", SHORT, 3, pretrained=True, folder=A
    ),
}
PRETRAINING = (
    "method={name = 'central'}",
    "method.train.epochs=8",
    "method.train.batch_size=128",
    "method.train.lr=2e-3",
    "method.train.schedule=cosine",
    'method.train.augment=["flip", "crop"]',
    "model.options.width_mult=0.5",
    "model.weights=",
)
RIVALS = ("ecavg", "ecavg_plus", "fedavg", "local")
UNGUARDED = ("method.name=ecavg_plus", "method.restat=false", "method.mixtures=[]")
NO_REMEDY = (*UNGUARDED, "method.refit=none")
REMEDIES = {
    "ecavg, alpha 0.5": (*NO_REMEDY, "method.pretrain.loss={name='restricted_softmax',alpha=0.5}"),
    "ecavg, by_class": (*NO_REMEDY, "method.merge=by_class"),
    "ecavg, regmean": (*NO_REMEDY, "method.merge=regmean"),
    "ecavg, ridge": (*UNGUARDED, "method.refit.ridge=1e-3"),
    "ecavg, refit": (*UNGUARDED, "method.refit.epochs=2"),
    "ecavg, guard": (*NO_REMEDY, "method.mixtures=[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0]"),
    "ecavg, annealed": (*NO_REMEDY, "method.finetune.schedule=cosine", "method.retrain.schedule=cosine"),
    "ecavg, tail": (*NO_REMEDY, "method.retrain.average_last=0.25"),
    "ecavg, cloud's tail": (*NO_REMEDY, "method.finetune.average_last=0.25"),
}
SHARED = (0.01, 0.05, 0.2)


def changes(study: Study, folder: Path) -> tuple[str, ...]:
    """Return the changes of a study; pre-trained weights are in ``folder``."""
    sets = study.changes
    if study.folder:
        sets += (f"data.name={source(study.folder)}",)
    if study.pretrained:
        experiment = load_experiment("ecavg-cifar10", (f"data.name={source(B)}", *PRETRAINING))
        done = run_or_resume(
            experiment, folder / "pre-training", observer=Live(CONSOLE, "pre-training", rows=False)
        )
        sets += (f"model.weights={folder / 'pre-training' / done.weights[CLOUD]}",)
    return sets


def source(name: str) -> Path:
    """Return a folder of $SHEAF_DATA."""
    return Path(os.environ["SHEAF_DATA"]).resolve() / name


def variants(study: Study, sets: tuple[str, ...]) -> dict[str, Experiment]:
    """Return label -> experiment with seed 0, for each run of a study."""
    base = load_experiment(study.source, sets)
    chosen = {method: base.with_method(method) for method in RIVALS}
    if study.remedies:
        alone = tuple(change for change in sets if change not in FAITHFUL)
        for remedy, remedies in REMEDIES.items():
            chosen[remedy] = load_experiment(study.source, (*alone, *remedies))
        local = chosen["local"]
        annealed = replace(local.method, train=replace(local.method.train, schedule="cosine"))
        chosen["local, annealed"] = replace(local, method=annealed)
    if study.sharing:
        plus = chosen["ecavg_plus"]
        for fraction in SHARED:
            method = replace(plus.method, share=Share(fraction=fraction))
            chosen[f"ecavg_plus, {fraction:.0%} shared"] = replace(plus, method=method)
    return chosen


def row(experiment: str, method: str, seed: int, result: Result, faithful: Result) -> dict[str, Any]:
    """Return a row of the result file."""
    began = {row.site: row.accuracy for row in faithful.rows if row.stage == "before update"}
    ended = {site: final.accuracy for site in result.split if (final := result.final(site))}
    own = {row.site: row for row in result.rows if row.stage == "before update"}
    gains = [ended[site] - began[site] for site in began]
    worse = [site for site, before in own.items() if ended[site] < before.accuracy - standard_error(before)]
    clouds = {row.stage: row.accuracy for row in result.rows if row.site == CLOUD and not row.reference}
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
        "commit": result.provenance["commit"],
    }


def slug(name: str) -> str:
    """Return a name as part of a file name."""
    return name.replace(" ", "_").replace("/", "-")


def standard_error(row: Any) -> float:
    """Return the standard error of an accuracy on its test images."""
    return float((row.accuracy * (1 - row.accuracy) / row.examples) ** 0.5)


def main() -> None:
    """Run the named experiments, or all, and publish ``averaging.json``."""
    given, asked = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(STUDIES)
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    data: dict[str, str] = {}
    for name, study in STUDIES.items():
        sets = changes(study, given) if name in asked or any(given.glob(f"{slug(name)}-*")) else ()
        for seed in range(study.seeds) if sets else ():
            results: dict[str, Result] = {}
            for method, experiment in variants(study, sets).items():
                folder = given / slug(f"{name}-{method}-{seed}")
                if name in asked:
                    watch = Live(CONSOLE, f"{name}: {method}, seed {seed}", rows=False)
                    run_or_resume(replace(experiment, seed=seed), folder, observer=watch)
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
