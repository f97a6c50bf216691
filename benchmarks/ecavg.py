"""Run ECAvg's experiments and their baselines: the same data, seeds and training budget for every method.

``ecavg-mnist`` is the paper's experiment 3 at full size. ``ecavg-cifar10`` is its experiment 1 on 10,000 of
the training images, with random initial weights instead of ImageNet's. ``ecavg-cifar10-lite0`` is the same
with a network that ships ImageNet weights (extra ``lite0``); each of its runs takes about 15 minutes on two
cores.

Run: SHEAF_DATA=… python -m benchmarks.ecavg FOLDER [EXPERIMENT …]      (all experiments without a name)
Finished runs in FOLDER are read and interrupted ones resumed. Rows are published after each seed; the rows of
the other experiments stay.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import FOLDER, publish
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import compare
from sheaf.experiments.config import load_experiment
from sheaf.report.live import Live
from sheaf.report.terminal_tables import comparison_table
from sheaf.runtime.result import Result

METHODS = ("ecavg", "ecavg_plus", "fedavg", "local", "central")
SEEDS = 3
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "ecavg-digits": (),
    "ecavg-mnist": (),
    "ecavg-cifar10": ("data.limit=10000", "model.weights="),
    "ecavg-cifar10-lite0": ("data.limit=10000",),
}


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


def publish_rows(
    name: str, rows: list[dict[str, Any]], settings: dict[str, Any], data: dict[str, str]
) -> None:
    """Write the rows, settings and data of this experiment into ``ecavg.json``."""
    file = FOLDER / "ecavg.json"
    if file.exists():
        published = json.loads(file.read_text())
        before, commit = published["provenance"], {"commit": published["provenance"]["commit"]}
        others = [commit | row for row in published["rows"] if row["experiment"] != name]
        rows = sorted(others + rows, key=lambda row: list(EXPERIMENTS).index(row["experiment"]))
        settings, data = before["settings"] | settings, before["data"] | data
    publish("ecavg", rows, settings, 0, data)


def main() -> None:
    """Run the named experiments, and publish ``ecavg.json`` with a row for each evaluation of each run."""
    console, folder = Console(width=100), Path(sys.argv[1])
    for name in sys.argv[2:] or EXPERIMENTS:
        experiment = load_experiment(name, EXPERIMENTS[name])
        settings: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        for seed in range(SEEDS):
            seeded = replace(experiment, seed=seed)
            summaries = compare(
                seeded,
                METHODS,
                1,
                folder / name,
                observer=lambda title, _: Live(console, title, rows=False),
            )
            console.print(name, comparison_table(summaries))
            for method in METHODS:
                result = Result.read(folder / name / f"{method}-{seed}")
                named = {"experiment": name, "method": method, "seed": seed}
                rows += [named | row for row in rows_of(result)]
                settings[f"{name}/{method}"] = result.provenance["settings"]
            publish_rows(name, rows, settings, result.provenance["data"])


if __name__ == "__main__":
    main()
