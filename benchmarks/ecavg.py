"""Run ECAvg's experiments and their baselines: the same data, seeds and training budget for every method.

``ecavg-mnist`` is the paper's experiment 3 at full size. ``ecavg-cifar10`` is its experiment 1 on 10,000 of
the training images, with random initial weights instead of ImageNet's. ``ecavg-cifar10-lite0`` is the same
with a network that ships ImageNet weights (extra ``lite0``); each of its runs takes about 18 minutes on one
core. ``ecavg-tiny100-lite0`` is experiment 2 with that network on 100 classes of Tiny ImageNet at 32x32 (a
folder ``tinyimagenet32-a`` in ``SHEAF_DATA``), the stand-in for CIFAR-100.

Run: SHEAF_DATA=… python -m benchmarks.ecavg FOLDER [EXPERIMENT …]      (all experiments without a name)
     SHEAF_DATA=… python -m benchmarks.ecavg FOLDER EXPERIMENT --publish
Finished runs in FOLDER are read and interrupted ones resumed. After each run, the rows of all finished runs
of its experiment are published. Published rows stay until their run is finished again; each row has its
commit. With ``--publish``, nothing is run.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import publish, published
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import load_experiment
from sheaf.report.live import Live
from sheaf.runtime.result import Result

METHODS = ("ecavg", "ecavg_plus", "fedavg", "local", "central")
SEEDS = 3
EXPERIMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ecavg-digits": ("ecavg-digits", ()),
    "ecavg-mnist": ("ecavg-mnist", ()),
    "ecavg-cifar10": ("ecavg-cifar10", ("data.limit=10000", "model.weights=")),
    "ecavg-cifar10-lite0": ("ecavg-cifar10-lite0", ("data.limit=10000",)),
    "ecavg-tiny100-lite0": (
        "ecavg-cifar10-lite0",
        (
            "title=ECAvg, experiment 2 with stand-ins: EfficientNet-Lite0, 100 classes of Tiny ImageNet",
            "data.name=tinyimagenet32-a",
            "data.limit=10000",
        ),
    ),
}
"""Name -> the shipped experiment and the changes to it."""


def rows_of(result: Result) -> Iterator[dict[str, Any]]:
    """Yield a row for each evaluation of a run."""
    spent = {
        "bytes": sum(cost.bytes_sent for cost in result.cost.values()),
        "edge_macs": sum(cost.train_macs for site, cost in result.cost.items() if site != CLOUD),
        "cloud_macs": result.cost[CLOUD].train_macs,
        "commit": result.provenance["commit"],
    }
    for row in result.rows:
        yield {
            key: value for key, value in asdict(row).items() if key not in ("confusion", "choices")
        } | spent


def publish_finished(name: str, folder: Path) -> None:
    """Write the rows, settings and data of the finished runs of an experiment into ``ecavg.json``."""
    before, settings, data = published("ecavg")
    found: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for row in before:
        found.setdefault(_order(row), []).append(row)
    for seed, method in itertools.product(range(SEEDS), METHODS):
        run = folder / name / f"{method}-{seed}"
        if (run / "result.json").exists():
            result = Result.read(run)
            named = {"experiment": name, "method": method, "seed": seed}
            found[_order(named)] = [named | row for row in rows_of(result)]
            settings[f"{name}/{method}"] = result.provenance["settings"]
            data |= result.provenance["data"]
    publish("ecavg", [row for run in sorted(found) for row in found[run]], settings, 0, data)


def _order(row: dict[str, Any]) -> tuple[int, int, int]:
    """Return the place of a row's run among all runs."""
    return list(EXPERIMENTS).index(row["experiment"]), row["seed"], METHODS.index(row["method"])


def main() -> None:
    """Run the named experiments, and publish ``ecavg.json`` with a row for each evaluation of each run."""
    console, folder = Console(width=100), Path(sys.argv[1])
    names = [name for name in sys.argv[2:] if name != "--publish"] or list(EXPERIMENTS)
    for name in names:
        shipped, changes = EXPERIMENTS[name]
        experiment = load_experiment(shipped, changes)
        runs = itertools.product(range(SEEDS), METHODS)
        for seed, method in () if "--publish" in sys.argv else runs:
            settings = replace(experiment.with_method(method), seed=seed)
            watch = Live(console, f"{name}: {method}, seed {seed}", rows=False)
            run_or_resume(settings, folder / name / f"{method}-{seed}", observer=watch)
            publish_finished(name, folder)
        publish_finished(name, folder)


if __name__ == "__main__":
    main()
