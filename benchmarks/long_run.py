"""Measure disk and memory over the rounds of a long run, and the seconds in which it resumes.

FedAvg on a small network with few images an edge, so that a round takes little time. The run is stopped at
its last round and resumed. Disk is everything in the run's folder, and unnamed files; each inode counts once.
Memory is the resident memory of the process that runs the method. ``memory_growth`` compares the medians of
the last tenth of the rounds and of rounds 10 to 20.

Run: SHEAF_DATA=… python -m benchmarks.long_run                        # 100 edges, 1,000 rounds
     SHEAF_DATA=… python -m benchmarks.long_run --edges 1000 --rounds 100
     SHEAF_DATA=… python -m benchmarks.long_run --fleet rehearsed --edges 3 --rounds 300
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer

from benchmarks.results import publish, published
from benchmarks.usage import disk_bytes
from sheaf.core.recipe import Recipe
from sheaf.data.partitions.iid import IID
from sheaf.data.settings import DataSettings
from sheaf.experiments import rehearse
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.experiments.provenance import provenance
from sheaf.methods.fedavg import FedAvg
from sheaf.models.build import ModelSettings
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row

SEED = 0
COLUMNS = ("job", "seconds", "resume_s", "peak_disk_mb", "end_disk_mb", "memory_mb", "memory_growth")


class Meter(NullObserver):
    """Records disk and memory at the end of each round, and stops the run at the last one.

    Args:
        folder: the run's folder.
        rounds: number of the last round.
    """

    def __init__(self, folder: Path, rounds: int) -> None:
        self.disk: list[int] = []
        self.memory: list[int] = []
        self._folder = folder
        self._rounds = rounds

    def row(self, row: Row) -> None:
        """Record the use of the round."""
        if row.stage != "average":
            return
        self.disk.append(disk_bytes(self._folder) + unnamed_bytes())
        self.memory.append(psutil.Process().memory_info().rss)
        if row.round == self._rounds:
            raise KeyboardInterrupt


def unnamed_bytes() -> int:
    """Return the bytes of the unnamed files that hold tensors of this process."""
    maps = psutil.Process().memory_maps(grouped=False)
    return sum({mapped.addr: mapped.size for mapped in maps if ".spilled" in mapped.path}.values())


def main(
    edges: Annotated[int, typer.Option(help="number of edges")] = 100,
    rounds: Annotated[int, typer.Option(help="number of rounds")] = 1000,
    images: Annotated[int, typer.Option(help="training images of each edge")] = 10,
    fleet: Annotated[
        str, typer.Option(help="local: in this process; rehearsed: devices on this machine")
    ] = "local",
) -> None:
    """Measure one run and publish its row in ``long_run.json``; the rows of other jobs stay."""
    experiment = Experiment(
        seed=SEED,
        data=DataSettings(name="mnist", limit=edges * images, limit_test=100, held_out=0.0),
        partition=IID(edges=edges),
        model=ModelSettings(name="mlp"),
        method=FedAvg(rounds=rounds, local=Recipe(epochs=1, batch_size=10, optimizer="sgd", lr=0.1)),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        row = measure(experiment, folder, rounds, fleet == "rehearsed")
    named = {
        "job": f"{edges} edges, {rounds} rounds, {fleet}",
        "fleet": fleet,
        "edges": edges,
        "rounds": rounds,
    }
    publish_row(named | row, {"images": images})


def publish_row(row: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write the row into ``long_run.json`` in place of an earlier one of the same job."""
    before, _, _ = published("long_run")
    rows = [other for other in before if other["job"] != row["job"]]
    commit = provenance({}, 0, {}, torch.device("cpu"))["commit"]
    rows = sorted([*rows, row | {"commit": commit}], key=lambda row: (row["fleet"], row["edges"]))
    publish("long_run", rows, settings, SEED, {}, COLUMNS)


def measure(experiment: Experiment, folder: Path, rounds: int, rehearsed: bool) -> dict[str, Any]:
    """Return the row of one run."""
    meter, began = Meter(folder, rounds), time.perf_counter()
    try:
        if rehearsed:
            rehearse.rehearse(experiment, folder, observer=meter)
        else:
            runs.run(experiment, out=folder, observer=meter)
    except KeyboardInterrupt:
        pass
    seconds, began = time.perf_counter() - began, time.perf_counter()
    log_bytes = (folder / "journal" / "journal.jsonl").stat().st_size
    if not rehearsed:  # the devices of a rehearsal are gone
        runs.resume(folder)
    early, late = meter.memory[9:20], meter.memory[-max(1, rounds // 10) :]
    return {
        "seconds": seconds,
        "resume_s": None if rehearsed else time.perf_counter() - began,
        "peak_disk_mb": max(meter.disk) / 1e6,
        "end_disk_mb": meter.disk[-1] / 1e6,
        "log_mb": log_bytes / 1e6,
        "memory_mb": late[-1] / 1e6,
        "memory_growth": statistics.median(late) / statistics.median(early) - 1,
        "disk_mb_of_rounds": [size / 1e6 for size in meter.disk[:: max(1, rounds // 100)]],
        "memory_mb_of_rounds": [size / 1e6 for size in meter.memory[:: max(1, rounds // 100)]],
    }


if __name__ == "__main__":
    typer.run(main)
