"""The speed of a merge, compared with a plain copy of the same bytes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.simulation.jobs import SEED
from sheaf.core.tensor_file import Blob
from sheaf.merges.average import Contribution, average

MERGED, UPDATES = 2_500_000, 50
"""Parameters of an update, and updates of a merge."""

REPEATS = 9


def merged() -> dict[str, Any]:
    """Return the row: updates merged from memory and from files, and copied.

    One copy writes each update to the same buffer, which stays in the cache; one writes each to its own.
    """
    draws = torch.Generator().manual_seed(SEED)
    updates = [{"w": torch.randn(MERGED, generator=draws)} for _ in range(UPDATES)]
    theta, buffer = updates[0], torch.zeros(MERGED)
    buffers = [torch.zeros(MERGED) for _ in updates]

    def copied(threads: int, into: Sequence[Tensor]) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        for update, place in zip(updates, into, strict=True):
            place.copy_(update["w"])
        torch.set_num_threads(before)

    with tempfile.TemporaryDirectory() as folder:
        blobs = [Blob.of(each).write(Path(folder) / str(at)) for at, each in enumerate(updates)]
        sides: dict[str, Callable[[], object]] = {
            "copy_1": partial(copied, 1, [buffer] * UPDATES),
            "copy_2": partial(copied, 2, [buffer] * UPDATES),
            "apart_1": partial(copied, 1, buffers),
            "apart_2": partial(copied, 2, buffers),
            "merge": lambda: average(theta, (Contribution(update, 1.0) for update in updates)),
            "merge_files": lambda: average(theta, (Contribution(blob.open(), 1.0) for blob in blobs)),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(REPEATS):
            for side, work in sides.items():
                began = time.perf_counter()
                work()
                seconds[side].append(time.perf_counter() - began)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    copy, apart = (min(medians[f"{kind}_{threads}"] for threads in (1, 2)) for kind in ("copy", "apart"))
    return {
        "job": f"merging {UPDATES} updates of {MERGED * 4 // 10**6} MB",
        "vs_copy": copy / medians["merge"],
        "vs_copy_from_files": copy / medians["merge_files"],
        "vs_copy_apart": apart / medians["merge"],
        "sides": {side: {"median_s": medians[side], "seconds": seconds[side]} for side in sides},
    }
