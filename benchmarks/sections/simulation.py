"""Many edges on one machine, against others that simulate the same."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.sections._tables import Rows, commits, table, times, with_range
from sheaf.report.tables import size


def simulation(rows: Rows) -> str:
    """Many edges on one machine, against others that simulate the same."""
    sides = {
        "sheaf": "sheaf",
        "one_by_one": "sheaf, one by one",
        "bare_1": "bare loop, 1 thread",
        "bare_2": "bare loop, 2 threads",
        "flower": "Flower",
    }
    jobs = [row for row in rows if "vs_bare" in row]
    lines = [
        (
            row["job"],
            *(_seconds(row["sides"].get(side)) for side in sides),
            times(row["vs_flower"]),
            f"{row['vs_bare']:.2f}x",
        )
        for row in jobs
    ]
    accuracies = [
        (
            row["job"],
            *(f"{row['sides'][side]['accuracy']:.4f}" if side in row["sides"] else "-" for side in sides),
        )
        for row in jobs
    ]
    sizes = sorted((row for row in rows if "edges" in row), key=lambda row: int(row["edges"]))
    growth = [
        (
            row["edges"],
            f"{1000 * row['round_s']:.0f} ({1000 * min(row['rounds_s']):.0f} to "
            f"{1000 * max(row['rounds_s']):.0f})",
            f"{1000 * row['round_s'] / row['edges']:.2f}",
            "-" if smaller is None else f"{_further(smaller, row):.2f}",
            f"{row['median_s']:.2f}",
            size(row["memory_bytes"]),
        )
        for smaller, row in zip([None, *sizes], sizes, strict=False)
    ]
    others = [(row["job"], *(_others(row["sides"].get(side)) for side in sides)) for row in jobs]
    merges = [
        (
            row["job"],
            *(
                f"{1000 * row['sides'][side]['median_s']:.1f}"
                for side in ("copy_1", "copy_2", "apart_1", "apart_2", "merge", "merge_files")
            ),
            f"{row['vs_copy']:.2f}x",
            f"{row['vs_copy_apart']:.2f}x",
        )
        for row in rows
        if "vs_copy" in row
    ]
    shares = [
        (
            row["job"],
            f"{100 * row['share']:.1f} %",
            f"{100 * min(row['shares']):.1f} to {100 * max(row['shares']):.1f} %",
            with_range(statistics.median(row["seconds"]), row["seconds"]),
            with_range(statistics.median(row["seconds_without"]), row["seconds_without"]),
            f"{100 * row['cost']:.1f} %",
        )
        for row in rows
        if "share" in row
    ]
    return (
        "## Many edges on one machine\n\nSeconds of FedAvg over all edges, median (least to most) of the "
        "repeats, and how many times faster sheaf is than Flower's simulation (its rounds alone, without its "
        "start) and than the best of the bare loops. sheaf's seconds are of a whole run with its journal "
        "and files.\n\n"
        + table(("job", *sides.values(), "over Flower", "over bare"), lines)
        + "\n\nFlower with its start: "
        + "; ".join(
            f"{seconds:.1f} s, {seconds / row['sides']['sheaf']['median_s']:.1f}x ({row['job']})"
            for row in jobs
            if row["flower_with_start_s"]
            for seconds in [statistics.median(row["flower_with_start_s"])]
        )
        + ".\n\nAccuracy of the last average:\n\n"
        + table(("job", *sides.values()), accuracies)
        + "\n\nOne hidden layer on MNIST, all edges in each of 6 rounds, 60 images an edge to train with and "
        "10 to measure the average with. Milliseconds of a round but the first, median (least to most):\n\n"
        + table(
            ("edges", "a round, ms", "an edge, ms", "each further edge, ms", "the run, s", "peak memory"),
            growth,
        )
        + "\n\nCores that processes beside the benchmark's own used meanwhile, Flower's among them, median "
        "(least to most):\n\n"
        + table(("job", *sides.values()), others)
        + "\n\nA merge in float64, after so many that a compiler pays, against a plain copy of the same "
        "bytes, ms; from memory, and from files that are opened and read for it. A copy to one place writes "
        "where the cache has what it wrote before; one to places apart writes as much memory as it reads:\n\n"
        + table(
            (
                "job",
                "copy to one place, 1 thread",
                "2 threads",
                "to places apart, 1 thread",
                "2 threads",
                "merge",
                "merge from files",
                "of the one copy's speed",
                "of the other's",
            ),
            merges,
        )
        + "\n\nSeconds of journaling, those too in which others train, as a share of a run; and a run's "
        "seconds with its journal and with one that keeps nothing, in turns; lost is the median of the "
        "pairs:\n\n"
        + table(("job", "share", "least to most", "with, s", "without, s", "lost"), shares)
        + "\n\nAt the last commit that each was measured at: "
        + commits((row["job"], row["commit"]) for row in rows)
        + "."
    )


def _seconds(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "-"
    return with_range(side["median_s"], side["seconds"])


def _further(smaller: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Milliseconds a round of each edge that a larger fleet has more."""
    return float(1000 * (row["round_s"] - smaller["round_s"]) / (row["edges"] - smaller["edges"]))


def _others(side: Mapping[str, Any] | None) -> str:
    return "-" if side is None else with_range(statistics.median(side["others"]), side["others"])
