"""Measure decoupled training step by step: the accuracy and cost of each step, and baselines of equal work.

``saved`` is the multiply-adds per image of the whole model over those of the weakest device's sub-model;
every device saves at least 11.8 times. ``cloud_share`` is the cloud's work over that of full central
training (``central``). The baselines are central training with the same work (``central, N %``), and for as
many epochs as the devices train in the longest step.

Run: SHEAF_DATA=… python -m benchmarks.decoupled FOLDER [SEED,SEED… [NETWORK or STEP…]]
Resumes interrupted runs, and publishes after each network. Published rows stay until their step runs again;
each row has its commit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import publish, published
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume, summarise
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.report.live import Live
from sheaf.runtime.result import Result

SEEDS = "0,1,2"
EPOCHS = 20
LONG, LONGER = 100, 200


@dataclass(frozen=True)
class Job:
    """A shipped experiment, the changes for all of its steps, and its recipe.

    ``equal`` is a cut into blocks of one width, each of which saves 11.8 times.
    """

    shipped: str
    changes: tuple[str, ...]
    recipe: str
    equal: str


NETWORKS = {
    "cifar10/alexnet@32": Job(
        "decoupled-cifar10-alexnet",
        ("data.limit=10000",),
        '{epochs=%d, schedule="cosine", augment=["flip", "crop"]}',
        '{name="by_class", by="width", width=1.0}',
    ),
    "fsdd/kws_cnn": Job(
        "decoupled-kws",
        ("model.options.width=16",),
        '{epochs=%d, schedule="cosine", batch_size=32}',
        '{name="by_class", by="width", width=0.7}',
    ),
}

APART = ("method.share=", "method.refit=")
ALL = ("method.share.fraction=1.0",)
DECAY = ("method.train.optimizer=adamw", "method.train.weight_decay=0.05")
STEPS: dict[str, tuple[str, ...]] = {
    # what a step changes in the shipped experiment: a tenth of the images pooled, the classifier refitted
    "no negatives": ("method.negatives=none", *APART),
    "outliers": ("method.negatives=outliers", *APART),
    "10 % pooled": (),
    "all pooled": ALL,
    "all pooled, finetune 25 %": (*ALL, "method.refit=", "method.finetune=EPOCHS/4"),
    "all pooled, finetune 50 %": (*ALL, "method.refit=", "method.finetune=EPOCHS/2"),
    "all pooled, equal widths": (*ALL, "method.cut=EQUAL"),
    f"all pooled, equal widths, {LONG} epochs": (*ALL, "method.cut=EQUAL", "method.train=LONG"),
    f"all pooled, equal widths, {LONGER} epochs": (*ALL, "method.cut=EQUAL", "method.train=LONGER"),
    f"all pooled, equal widths, {LONG} epochs, weight decay": (
        *ALL,
        "method.cut=EQUAL",
        "method.train=LONG",
        *DECAY,
    ),
    f"half pooled, equal widths, {LONG} epochs, weight decay": (
        "method.share.fraction=0.5",
        "method.cut=EQUAL",
        "method.train=LONG",
        *DECAY,
    ),
}
CENTRAL: dict[str, tuple[int, tuple[str, ...]]] = {
    "central": (EPOCHS, ()),
    "central, 50 %": (EPOCHS // 2, ()),
    "central, 25 %": (EPOCHS // 4, ()),
    "central, 1 epoch": (1, ()),
    "central, weight decay": (EPOCHS, DECAY),
    f"central, {LONG} epochs": (LONG, ()),
}


def experiments(name: str) -> dict[str, Experiment]:
    """Return step -> experiment with seed 0."""
    job = NETWORKS[name]
    words = {"EPOCHS/4": job.recipe % (EPOCHS // 4), "EPOCHS/2": job.recipe % (EPOCHS // 2)}
    words |= {"LONG": job.recipe % LONG, "LONGER": job.recipe % LONGER, "EQUAL": job.equal}

    def filled(setting: str) -> str:
        key, _, value = setting.partition("=")
        return f"{key}={words.get(value, value)}"

    trained = (*job.changes, f"method.train={job.recipe % EPOCHS}")
    steps = {
        step: load_experiment(job.shipped, (*trained, *map(filled, settings)))
        for step, settings in STEPS.items()
    }
    central = {
        step: load_experiment(
            job.shipped, (*job.changes, "method=central", f"method.train={job.recipe % epochs}", *more)
        )
        for step, (epochs, more) in CENTRAL.items()
    }
    return central | steps


def rows(name: str, step: str, seed: int, result: Result, central: Result) -> Iterator[dict[str, Any]]:
    """Return the rows of a run: one of its end, and one before a refit."""
    summary = summarise(step, [result], EPOCHS)
    stages = {row.stage: row.accuracy for row in result.rows if row.site == CLOUD}
    reference = central.final(CLOUD)
    assert reference is not None
    trained = [cost for site, cost in result.cost.items() if site != CLOUD and cost.train_macs]
    ended = {
        "name": name,
        "step": step,
        "seed": seed,
        "images": sum(map(sum, result.split.values())),
        "accuracy": list(stages.values())[-1],
        "central": reference.accuracy,
        "cloud_share": result.cost[CLOUD].train_macs / central.cost[CLOUD].train_macs,
        "saved_weakest": max(summary.saved.values()) if trained else None,
        "saved_least": min(summary.saved.values()) if trained else None,
        "saved_sum": summary.saved_sum,
        "saved_sum_with_cloud": summary.saved_sum_with_cloud,
        "bytes": summary.bytes,
        "commit": result.provenance["commit"],
    }
    if "refitted" in stages:
        without = {"accuracy": stages["bound"], "cloud_share": 0.0}
        yield ended | without | {"saved_sum_with_cloud": summary.saved_sum}
        step = f"{step}, refit"
    yield ended | {"step": step}


def main() -> None:
    """Run the named steps, or all, and publish ``decoupled.json``."""
    console = Console(width=100)
    given, seeds = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else SEEDS
    named = sys.argv[3:]
    networks = [name for name in NETWORKS if name in named] or list(NETWORKS)
    steps = {step for step in (*CENTRAL, *STEPS) if step in named} or {*CENTRAL, *STEPS}
    before, settings, data = published("decoupled")
    found = {(row["name"], row["step"], row["seed"]): row for row in before}
    for seed in map(int, seeds.split(",")):
        for name in networks:
            central: Result | None = None
            for step, experiment in experiments(name).items():
                if step not in {"central", *steps}:
                    continue
                folder = given / f"{name}-{step}-{seed}".replace("/", "-").replace(" ", "_")
                watch = Live(console, f"{name}: {step}, seed {seed}", rows=False)
                result = run_or_resume(replace(experiment, seed=seed), folder, observer=watch)
                central = central or result
                settings[f"{name}: {step}"] = result.provenance["settings"]
                data |= result.provenance["data"]
                for row in rows(name, step, seed, result, central):
                    found[name, row["step"], seed] = row
                    console.print(f"    {row['step']}: {row['accuracy']:.4f}", highlight=False)
            order = [*CENTRAL, *(f"{step}{refit}" for step in STEPS for refit in ("", ", refit"))]
            ordered = sorted(
                found.values(), key=lambda row: (row["seed"], row["name"], order.index(row["step"]))
            )
            columns = ("name", "step", "seed", "accuracy", "cloud_share")
            publish("decoupled", ordered, settings, 0, data, columns)


if __name__ == "__main__":
    main()
