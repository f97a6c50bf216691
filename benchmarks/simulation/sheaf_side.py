"""sheaf's own side: a complete run of a job."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.simulation.jobs import Job
from sheaf.core.types import CLOUD
from sheaf.experiments.run import run
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row
from sheaf.training.peak_memory import PeakMemory


class Rounds(NullObserver):
    """Records the time at the end of each round."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def row(self, row: Row) -> None:
        """Record the time."""
        if row.stage == "average":
            self.ends.append(time.perf_counter())


def sheaf(job: Job, device: str, together: str = "auto", threads: int = 0) -> dict[str, Any]:
    """Run a job on ``threads`` threads (0: the default); return the seconds of the run and of its rounds."""
    usual, rounds = torch.get_num_threads(), Rounds()
    with tempfile.TemporaryDirectory() as folder, PeakMemory(torch.device(device)) as peak:
        began = time.perf_counter()
        result = run(job.experiment(device, together, threads), out=Path(folder) / "run", observer=rounds)
        seconds = time.perf_counter() - began
        final = result.final(CLOUD)
    torch.set_num_threads(usual)
    assert final is not None
    return {
        "seconds": seconds,
        "accuracy": final.accuracy,
        "memory": peak.bytes,
        "rounds": [end - start for start, end in pairwise(rounds.ends)],
    }
