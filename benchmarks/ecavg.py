"""Run ECAvg's experiments and their baselines: the same data, seeds and training budget for every method.

``ecavg-mnist`` is the paper's experiment 3 at full size. ``ecavg-cifar10`` is its experiment 1 on 10,000 of
the training images, with random initial weights instead of ImageNet's.

Run: SHEAF_DATA=… python -m benchmarks.ecavg [FOLDER]      (with FOLDER, resumes interrupted runs)
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import publish
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import compare
from sheaf.experiments.config import load_experiment
from sheaf.report.live import Live
from sheaf.report.terminal_tables import comparison_table
from sheaf.runtime.result import Result

METHODS = ("ecavg", "fedavg", "local", "central")
SEEDS = 3
EXPERIMENTS = {
    "ecavg-digits": (),
    "ecavg-mnist": (),
    "ecavg-cifar10": ("data.limit=10000", "model.weights="),
}


def main() -> None:
    """Run everything, and publish ``ecavg.json`` with a row for each evaluation of each run."""
    console = Console(width=100)
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    data: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, changes in EXPERIMENTS.items():
            experiment = load_experiment(name, changes)
            folder = (given or Path(scratch)) / name
            summaries = compare(
                experiment, METHODS, SEEDS, folder, observer=partial(Live, console, rows=False)
            )
            console.print(name, comparison_table(summaries))
            for method in METHODS:
                for seed in range(experiment.seed, experiment.seed + SEEDS):
                    result = Result.read(folder / f"{method}-{seed}")
                    spent = {
                        "bytes": sum(cost.bytes_sent for cost in result.cost.values()),
                        "edge_macs": sum(c.train_macs for site, c in result.cost.items() if site != CLOUD),
                        "cloud_macs": result.cost[CLOUD].train_macs,
                    }
                    for row in result.rows:
                        measured = {key: value for key, value in asdict(row).items() if key != "confusion"}
                        rows.append({"experiment": name, "method": method, "seed": seed, **measured, **spent})
                settings[f"{name}/{method}"] = result.provenance["settings"]
            data |= result.provenance["data"]
    publish("ecavg", rows, settings, 0, data)


if __name__ == "__main__":
    main()
