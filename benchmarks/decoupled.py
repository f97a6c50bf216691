"""Decoupled training step by step: what each step brings, what it costs, and the honest rivals.

``saved`` is multiply-adds an image of the whole model over those of the weakest device's part; every device
saves at least 11.8 times. ``cloud_share`` is the cloud's work over that of central training to the end, which
is ``central``'s accuracy; beside it stands central training with as little work (``central, N epochs``).

Run: SHEAF_DATA=… python -m benchmarks.decoupled [FOLDER [SEEDS]]
With a FOLDER it goes on where it was stopped. Results are published after each seed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import publish
from sheaf.compare import run_or_resume, summarise
from sheaf.config import Experiment, load_experiment
from sheaf.record import Result
from sheaf.report.live import Live
from sheaf.types import CLOUD

SEEDS = 3
EPOCHS = 20

NETWORKS = {
    "cifar10/alexnet@32": (
        "decoupled-cifar10-alexnet",
        ("data.limit=10000",),
        '{epochs=%d, schedule="cosine", augment=["flip", "crop"]}',
    ),
    "fsdd/kws_cnn": (
        "decoupled-kws",
        ("model.options.width=16",),
        '{epochs=%d, schedule="cosine", batch_size=32}',
    ),
}

STEPS: dict[str, tuple[str, ...]] = {
    # each line: the settings that a step adds to "no negatives"
    "no negatives": ("method.negatives=none", "method.share=", "method.refit="),
    "outliers": ("method.negatives=outliers", "method.share=", "method.refit="),
    "10 % pooled": ("method.refit=",),
    "10 % pooled, refit": (),
    "all pooled": ("method.share.fraction=1.0", "method.refit="),
    "all pooled, refit": ("method.share.fraction=1.0",),
    "all pooled, finetune 25 %": ("method.share.fraction=1.0", "method.refit=", "method.finetune=EPOCHS/4"),
    "all pooled, finetune 50 %": ("method.share.fraction=1.0", "method.refit=", "method.finetune=EPOCHS/2"),
}
CENTRAL = {
    "central": EPOCHS,
    "central, 50 %": EPOCHS // 2,
    "central, 25 %": EPOCHS // 4,
    "central, 1 epoch": 1,
}


def experiments(name: str) -> dict[str, Experiment]:
    """Step -> its experiment, seed 0."""
    shipped, changes, recipe = NETWORKS[name]

    def filled(setting: str) -> str:
        for text, epochs in (("EPOCHS/4", EPOCHS // 4), ("EPOCHS/2", EPOCHS // 2)):
            setting = setting.replace(text, recipe % epochs)
        return setting

    trained = (*changes, f"method.train={recipe % EPOCHS}")
    steps = {
        step: load_experiment(shipped, (*trained, *map(filled, settings))) for step, settings in STEPS.items()
    }
    central = {
        step: load_experiment(shipped, (*changes, "method=central", f"method.train={recipe % epochs}"))
        for step, epochs in CENTRAL.items()
    }
    return central | steps


def row(name: str, step: str, seed: int, result: Result, central: Result) -> dict[str, Any]:
    """One row of the result file."""
    summary = summarise(step, [result], EPOCHS)
    last, reference = result.final(CLOUD), central.final(CLOUD)
    assert last is not None
    assert reference is not None
    trained = [cost for site, cost in result.cost.items() if site != CLOUD and cost.train_macs]
    return {
        "name": name,
        "step": step,
        "seed": seed,
        "accuracy": last.accuracy,
        "central": reference.accuracy,
        "cloud_share": result.cost[CLOUD].train_macs / central.cost[CLOUD].train_macs,
        "saved_weakest": max(summary.saved.values()) if trained else None,
        "saved_least": min(summary.saved.values()) if trained else None,
        "saved_sum": summary.saved_sum,
        "saved_sum_with_cloud": summary.saved_sum_with_cloud,
        "bytes": summary.bytes,
    }


def main() -> None:
    """Runs everything and publishes ``decoupled.json``."""
    console = Console(width=100)
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    data: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else SEEDS):
            for name in NETWORKS:
                results: dict[str, Result] = {}
                for step, experiment in experiments(name).items():
                    title = f"{name}: {step}, seed {seed}"
                    folder = given / f"{name}-{step}-{seed}".replace("/", "-").replace(" ", "_")
                    watch = Live(console, title, rows=False)
                    results[step] = run_or_resume(replace(experiment, seed=seed), folder, watch=watch)
                    settings[f"{name}: {step}"] = results[step].provenance["settings"]
                    data |= results[step].provenance["data"]
                    rows.append(row(name, step, seed, results[step], results["central"]))
                    console.print(f"    accuracy {rows[-1]['accuracy']:.4f}", highlight=False)
            publish("decoupled", rows, settings, 0, data, ("name", "step", "seed", "accuracy", "cloud_share"))


if __name__ == "__main__":
    main()
