"""The sides of a job, in turn, and its row."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.simulation.bare import Bare
from benchmarks.simulation.jobs import JOBS, SIMULATORS
from benchmarks.simulation.peak import peak_macs_per_second, training_macs
from benchmarks.simulation.sheaf_side import sheaf
from benchmarks.simulation.simulators import simulate

Measured = dict[str, Any]
"""Result of one run of a side: ``seconds``, ``accuracy`` and further measurements."""


def with_others(side: Callable[[], Measured]) -> Measured:
    """Run a side; add the number of cores that other programs used meanwhile, as ``others``."""

    def used() -> tuple[float, float]:
        machine, own = psutil.cpu_times(), os.times()
        return sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice, sum(own[:4])

    before, began = used(), time.perf_counter()
    measured = side()
    after, seconds = used(), time.perf_counter() - began
    return {**measured, "others": max(0.0, (after[0] - before[0] - after[1] + before[1]) / seconds)}


def compared(name: str, environments: Path | None, device: str) -> dict[str, Any]:
    """Return the row of a job; see the package.

    Args:
        name: a key of ``JOBS``.
        environments: the folder with the other simulators' environments; None leaves them out.
        device: where sheaf and the bare loop compute.
    """
    job, bare = JOBS[name], Bare(JOBS[name], device)
    threads = torch.get_num_threads()
    sides: dict[str, Callable[[], Measured]] = {
        "sheaf": lambda: sheaf(job, device),
        "one_by_one": lambda: sheaf(job, device, "never", job.threads[-1]),
    }
    sides |= {f"bare_{count}": partial(bare, count) for count in job.threads}
    if environments is not None:
        sides |= {each: partial(simulate, each, bare, environments) for each in job.simulators}
    runs: dict[str, list[Measured]] = {side: [] for side in sides}
    peaks = []
    for turn in range(job.repeats):
        peaks.append(peak_macs_per_second(threads, device))
        for side in sides if turn % 2 else reversed(sides):
            if turn < (job.one_by_one if side == "one_by_one" else job.repeats):
                runs[side].append(with_others(sides[side]))
                print(f"{name}: {side} {runs[side][-1]}", flush=True)
    seconds = {side: [run["seconds"] for run in each] for side, each in runs.items()}
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    bare_side = min((side for side in sides if side.startswith("bare")), key=lambda side: medians[side])
    rivals = {"bare": bare_side, "one_by_one": "one_by_one"} | {each: each for each in SIMULATORS}
    macs, peak = training_macs(bare.prepared, job.rounds), statistics.median(peaks)
    return {
        "job": name,
        **{
            f"vs_{rival}": medians[side] / medians["sheaf"] if side in medians else None
            for rival, side in rivals.items()
        },
        "ranges": {
            f"vs_{rival}": _range(seconds[side], seconds["sheaf"])
            for rival, side in rivals.items()
            if side in seconds
        },
        "training_macs": macs,
        "peak_macs_per_second": peak,
        "peak_threads": threads,
        "peak_fraction": macs / medians["sheaf"] / peak,
        "sides": {
            side: {
                "median_s": medians[side],
                "seconds": seconds[side],
                "others": [run["others"] for run in each],
                "accuracy": statistics.median(run["accuracy"] for run in each),
            }
            | ({"with_start_s": [run["with_start"] for run in each]} if side in SIMULATORS else {})
            for side, each in runs.items()
        },
        "settings": asdict(job),
    }


def _range(seconds: list[float], own: list[float]) -> tuple[float, float]:
    """Return the least and the greatest ratio of two sides' seconds in the same turn."""
    ratios = [other / sheaf for other, sheaf in zip(seconds, own, strict=False)]
    return min(ratios), max(ratios)
