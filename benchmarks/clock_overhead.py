"""Measure the cost of the virtual clock: a thousand devices with a trace, with and without it.

Both runs are in one process and alternate; the first pair warms up. The trace's changes come after the run,
so that both train the same models; they must end with the same bits. Processor seconds are those of the
whole process.

Run: SHEAF_DATA=… python -m benchmarks.clock_overhead [PAIRS]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import publish
from sheaf.experiments.config import load_experiment
from sheaf.experiments.run import run
from sheaf.runtime.result import Result

PAIRS = 9
EDGES = 1000
CHANGES = ("method.rounds=4", "method.sample=1.0", "data.limit_test=200")
MIX = "{ 'raspberry-pi-4+lte' = 3, 'raspberry-pi-5+wifi' = 2, 'jetson-nano+wifi' = 1 }"
TRACED = 100
"""Rows of each device in the trace."""


def write_trace(file: Path) -> Path:
    """Write a trace in which each device leaves and returns, from the 1,000th hour on."""
    states = [(3.6e6 + 60 * number, "off" if number % 2 == 0 else "on") for number in range(TRACED)]
    rows = (f"edge-{edge:04},{at},{state}\n" for edge in range(1, EDGES + 1) for at, state in states)
    file.write_text("".join(rows))
    return file


def timed(changes: tuple[str, ...], folder: Path) -> tuple[float, float, Result]:
    """Return the seconds, the processor seconds and the result of a run."""
    experiment = load_experiment("fedavg-1000", changes)
    seconds, processor = time.perf_counter(), time.process_time()
    result = run(experiment, out=folder)
    return time.perf_counter() - seconds, time.process_time() - processor, result


def main(pairs: int = PAIRS) -> None:
    """Measure the pairs, and publish ``clock_overhead.json``."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        trace = write_trace(Path(scratch) / "trace.csv")
        clock = (*CHANGES, f"fleet.devices.mix={MIX}", f"fleet.devices.trace={trace}")
        for number in range(pairs + 1):
            measured = {}
            for name in ("plain", "clock") if number % 2 else ("clock", "plain"):
                folder = Path(scratch) / name
                measured[name] = timed(CHANGES if name == "plain" else clock, folder)
                shutil.rmtree(folder)
            (plain_s, plain_cpu_s, plain), (clock_s, clock_cpu_s, clocked) = (
                measured["plain"],
                measured["clock"],
            )
            assert clocked.rows == plain.rows, "the clock has changed the models"
            if number:
                rows.append(
                    {
                        "plain_s": plain_s,
                        "clock_s": clock_s,
                        "plain_cpu_s": plain_cpu_s,
                        "clock_cpu_s": clock_cpu_s,
                        "ratio": clock_s / plain_s,
                        "cpu_ratio": clock_cpu_s / plain_cpu_s,
                    }
                )
                print(rows[-1], flush=True)
    print(
        statistics.median(row["ratio"] for row in rows), statistics.median(row["cpu_ratio"] for row in rows)
    )
    settings = {"experiment": "fedavg-1000", "changes": list(CHANGES), "mix": MIX, "traced": TRACED}
    publish("clock_overhead", rows, settings, 0, dict(plain.provenance["data"]), tuple(rows[0]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
