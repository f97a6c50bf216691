"""Rounds of 10, 100 and 1,000 edges of the same size: an edge should cost the same in each."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.simulation.comparison import with_others
from benchmarks.simulation.jobs import Job
from benchmarks.simulation.sheaf_side import sheaf

GROWTH = (10, 100, 1000)
"""Numbers of edges, each with 60 training and 10 test images: the work of a round is proportional to it."""

REPEATS, ROUNDS = 3, 6


def grown(device: str) -> list[dict[str, Any]]:
    """Return the rows, each measured in a process of its own, for its memory."""
    rows = []
    for edges in GROWTH:
        command = [sys.executable, "-m", "benchmarks.simulation", "grow", str(edges), device]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
    smallest = min(row["per_edge_s"] for row in rows)
    return [row | {"vs_least_per_edge": row["per_edge_s"] / smallest} for row in rows]


def grow(edges: int, device: str) -> dict[str, Any]:
    """Measure one number of edges: runs, their rounds but the first, and memory."""
    job = Job("mlp", "mnist", edges, 60, 10, ROUNDS, REPEATS, tested=10 * edges)
    runs = [with_others(lambda: sheaf(job, device)) for _ in range(REPEATS)]
    rounds = [seconds for run in runs for seconds in run["rounds"]]
    return {
        "job": f"{edges} edges of 60 images",
        "edges": edges,
        "median_s": statistics.median(run["seconds"] for run in runs),
        "round_s": statistics.median(rounds),
        "per_edge_s": statistics.median(rounds) / edges,
        "rounds_s": rounds,
        "seconds": [run["seconds"] for run in runs],
        "others": [run["others"] for run in runs],
        "memory_bytes": max(run["memory"] for run in runs),
        "settings": asdict(job),
    }
