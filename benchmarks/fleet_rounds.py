"""Memory and disk of a real fleet's cloud and devices over the rounds of one run, on a rehearsed fleet.

FedAvg with weights of 10 MB, one epoch of few images in each round. Memory is the proportional set size of a
process and its descendants; disk is the size of the run's folder, of the fleet's folder and of a device's.

Run: python -m benchmarks.fleet_rounds [ROUNDS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fleet import hidden_of
from benchmarks.results import publish
from benchmarks.usage import MB, disk_bytes, process_trees, pss
from sheaf.core.types import CLOUD
from sheaf.experiments import rehearse as rehearsal
from sheaf.experiments import run_on_fleet
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import prepare
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row

ROUNDS = 50
EDGES = 3
SIZE = 10 * MB


class Meter(NullObserver):
    """An observer that measures after the merge of each round.

    Args:
        folder: of the rehearsal.
        run: the run's folder.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self._folder = folder
        self._run = run
        self.rows: list[dict[str, Any]] = []

    def row(self, row: Row) -> None:
        """Measure, if the row is the cloud's of a round."""
        if row.site != CLOUD:
            return
        devices, cloud = process_trees()
        self.rows.append(
            {
                "name": f"round {row.round}",
                "round": row.round,
                "run_mb": pss(psutil.Process().pid),
                "server_mb": sum(pss(process.pid) for own in cloud for process in own),
                "device_mb": max((sum(pss(process.pid) for process in own) for own in devices), default=0.0),
                "run_disk_mb": disk_bytes(self._run) / MB,
                "fleet_disk_mb": disk_bytes(self._folder / "fleet") / MB,
                "device_disk_mb": disk_bytes(self._folder / "edge-1" / "state") / MB,
            }
        )
        print(self.rows[-1], flush=True)


def main() -> None:
    """Run the rounds, and publish ``fleet_rounds.json``."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    changes = [f"partition.edges={EDGES}", "data.limit=90", "data.limit_test=50", "fleet.threads=1"]
    changes += ["method=fedavg", f"method.rounds={rounds}", "method.local.epochs=1"]
    experiment = load_experiment("ecavg-digits", [*changes, f"model.options.hidden={hidden_of(SIZE)}"])
    with tempfile.TemporaryDirectory(prefix="sheaf-rounds-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        meter = Meter(folder, folder / "run")
        with rehearsal.stage(prepare(experiment), folder) as fleet:
            run_on_fleet.run(experiment, fleet, out=folder / "run", wait=60.0, observer=meter)
    publish("fleet_rounds", meter.rows, {"changes": changes, "bytes": SIZE}, 0, {})


if __name__ == "__main__":
    main()
