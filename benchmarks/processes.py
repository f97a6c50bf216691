"""Measure training by two processes of one thread each against one such process: time, bits, memory.

Edges: FedAvg with one hidden layer or a small CNN on MNIST, plain SGD on batches of ten; the time of a round,
from the end of one measurement of the average to the next, so that the start of the other process is not in
it. Cloud: MobileNetV2 on CIFAR-10, whose gradients and batch norms go through Gloo in every step; the time of
the training call. One and two processes take turns. Memory is the largest resident and unique set of a
process after a round: the examples that all map are in the resident set only.

Run: SHEAF_DATA=… python -m benchmarks.processes
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import publish
from benchmarks.simulation.jobs import CNN
from sheaf.core.recipe import Recipe
from sheaf.core.types import CLOUD
from sheaf.data.partitions.iid import IID
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import CloudSettings, Experiment, FleetSettings
from sheaf.experiments.run import run
from sheaf.experiments.setup import prepare
from sheaf.methods.central import Central
from sheaf.methods.fedavg import FedAvg
from sheaf.models.build import ModelSettings
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row

SEED = 0
REPEATS = 3
ROUNDS = 3
"""Of which the first is not timed: it ends with the first measurement."""
SGD = Recipe(epochs=1, batch_size=10, optimizer="sgd", lr=0.1, momentum=0.0, precision="float32")
ADAM = Recipe(epochs=1, batch_size=64, precision="float32")


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        edges: their number.
        images: of each edge.
        model: its name.
        cloud: the cloud trains, not the edges.
    """

    edges: int
    images: int
    model: str = "mlp"
    cloud: bool = False

    def experiment(self, processes: int) -> Experiment:
        """Return the job for this number of processes."""
        return Experiment(
            seed=SEED,
            data=DataSettings(
                name="cifar10" if self.cloud else "mnist",
                limit=self.edges * self.images,
                limit_test=500,
                held_out=0.0,
            ),
            partition=IID(edges=self.edges),
            model=ModelSettings(name=self.model),
            method=Central(train=ADAM) if self.cloud else FedAvg(rounds=ROUNDS, local=SGD),
            fleet=FleetSettings(threads=1, device="cpu", processes=1 if self.cloud else processes),
            cloud=CloudSettings(processes=processes if self.cloud else 1),
        )


JOBS = {
    "1,000 edges, 60 images": Job(1000, 60),
    "100 edges, 600 images": Job(100, 600),
    "20 edges, small CNN, 600 images": Job(20, 600, CNN),
    "cloud, MobileNetV2, 2,048 images": Job(2, 1024, "mobilenet_v2", cloud=True),
}
"""In the first, one process keeps two cores busy: its main thread merges while the other one trains."""


class Watch(NullObserver):
    """Records the times of rounds or of the cloud's training, and the memory of the processes."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.cloud: list[float] = []
        self.memory: list[list[int]] = []

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Record the start of the cloud's training."""
        if kind == "train" and sites == (CLOUD,):
            self.cloud.append(time.perf_counter())

    def answered(self, site: str) -> None:
        """Record the end of the cloud's training."""
        if site == CLOUD and len(self.cloud) == 1:
            self.cloud.append(time.perf_counter())

    def row(self, row: Row) -> None:
        """Record the end of a round, and the memory."""
        if row.stage in ("average", "central"):
            self.ends.append(time.perf_counter())
            own = psutil.Process()
            for each in [own, *own.children(recursive=True)]:
                used = each.memory_full_info()
                self.memory.append([each.pid != own.pid, used.rss, used.uss])


def measure(job: Job, processes: int) -> dict[str, Any]:
    """Run a job; return its seconds, the digest of the final model, and the memory."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = run(job.experiment(processes), out=Path(folder) / "run", observer=watch)
        whole = time.perf_counter() - began
        weights = (Path(folder) / "run" / result.weights[CLOUD]).read_bytes()
        final = result.final(CLOUD)
    assert final is not None
    own = [used for used in watch.memory if not used[0]]
    others = [used for used in watch.memory if used[0]]
    return {
        "seconds": [b - a for a, b in pairwise(watch.cloud if job.cloud else watch.ends)],
        "whole": whole,
        "weights": hashlib.sha256(weights).hexdigest(),
        "accuracy": final.accuracy,
        "memory": _largest(own),
        "memory_other": _largest(others) if others else None,
    }


def _largest(used: list[list[int]]) -> list[int]:
    return [max(each[1] for each in used), max(each[2] for each in used)]


def main() -> None:
    """Measure all jobs and publish the rows."""
    rows, fingerprints = [], {}
    for name, job in JOBS.items():
        dataset = prepare(job.experiment(1)).dataset  # fills the cache of examples
        fingerprints[dataset.name] = dataset.fingerprint
        found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
        for _ in range(REPEATS):
            for processes, runs in found.items():
                runs.append(measure(job, processes))
        usual = statistics.median([s for one in found[1] for s in one["seconds"]])
        for processes, runs in found.items():
            seconds = [s for each in runs for s in each["seconds"]]
            rows.append(
                {
                    "name": name,
                    "processes": processes,
                    "seconds": statistics.median(seconds),
                    "all_seconds": seconds,
                    "whole_seconds": [each["whole"] for each in runs],
                    "vs_one": usual / statistics.median(seconds),
                    "same_bits": {each["weights"] for each in runs} == {found[1][0]["weights"]},
                    "accuracy": runs[0]["accuracy"],
                    "memory": runs[-1]["memory"],
                    "memory_other": runs[-1]["memory_other"],
                }
            )
    settings = {name: job.experiment(2).toml() for name, job in JOBS.items()}
    publish(
        "processes",
        rows,
        settings,
        SEED,
        fingerprints,
        ("name", "processes", "seconds", "vs_one", "same_bits"),
    )


if __name__ == "__main__":
    main()
