"""Compare a device's training with and without the reuse of freed memory.

Each measurement is a process of its own with the environment of a fleet's processes, and one thread. It
trains kws_cnn with mini-batches of 32 for ten seconds, as ``sheaf profile`` does. Both settings alternate.

Run: SHEAF_DATA=… python -m benchmarks.training_heap
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import time
from typing import Any

from rich.progress import track

from benchmarks.results import publish
from sheaf.experiments.config import load_experiment
from sheaf.experiments.measure_profile import sustained_speed
from sheaf.experiments.setup import prepare
from sheaf.fleets.remote.training_heap import SETTINGS, reused_blocks

PAIRS = 5
CHANGES = (
    "data={ name = 'mnist', limit = 1500, limit_test = 100 }",
    "partition={ name = 'iid', edges = 3 }",
    "model.name='kws_cnn'",
    "method.pretrain={ epochs = 1, batch_size = 32, optimizer = 'sgd', lr = 0.05 }",
    "fleet.threads=1",
)


def measure(reuses: bool) -> dict[str, Any]:
    """Train, and return multiply-adds per processor second, page faults and the process's peak memory."""
    setup = prepare(load_experiment("ecavg-digits", CHANGES))
    faults, began, processor = _faults(), time.perf_counter(), time.process_time()
    with reused_blocks() if reuses else contextlib.nullcontext():
        speed = sustained_speed(setup, setup.experiment.method.budget.recipe)
    share = (time.process_time() - processor) / (time.perf_counter() - began)
    return {
        "speed": speed / share,
        "faults": _faults() - faults,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "data": setup.fingerprints,
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    """Measure the pairs, and publish ``training_heap.json``."""
    os.environ |= SETTINGS  # glibc reads them at the start of each measured process
    rows, data = [], {}
    for number in track(range(PAIRS), "pairs"):
        for reuses in (True, False) if number % 2 else (False, True):
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                found = pool.apply(measure, (reuses,))
            data = found.pop("data")
            rows.append({"pair": number, "reuses": reuses, **found})
    publish("training_heap", rows, {"changes": CHANGES}, 0, data, tuple(rows[0]))


if __name__ == "__main__":
    main()
