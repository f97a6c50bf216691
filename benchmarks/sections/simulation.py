"""Simulating many edges on one machine, compared with other simulators."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.sections._tables import Rows, commits, table, times, with_range
from sheaf.report.formatting import format_bytes


def simulation(rows: Rows) -> str:
    """Return the section."""
    sides = {
        "sheaf": "sheaf",
        "one_by_one": "sheaf, one by one",
        "bare_1": "bare loop, 1 thread",
        "bare_2": "bare loop, 2 threads",
        "fedjax": "FedJAX",
        "pfl": "pfl-research",
        "flower": "Flower",
    }
    jobs = [row for row in rows if "vs_bare" in row]
    lines = [(row["job"], *(_seconds(row["sides"].get(side)) for side in sides)) for row in jobs]
    rivals = {"vs_flower": "Flower", "vs_fedjax": "FedJAX", "vs_pfl": "pfl-research", "vs_bare": "bare loop"}
    factors = [(row["job"], *(_factor(row, rival) for rival in rivals)) for row in jobs]
    limits = [
        (
            row["job"],
            f"{row['training_macs'] / 1e9:.1f}",
            f"{row['peak_macs_per_second'] / 1e9:.1f} ({row['peak_threads']} threads)",
            f"{100 * row['peak_fraction']:.0f} %",
        )
        for row in jobs
        if "peak_fraction" in row
    ]
    profiles = [row for row in jobs if "profile" in row]
    parts = list(profiles[0]["profile"])[:-2] if profiles else []  # without the total and the elapsed time
    spent = [
        (
            row["job"],
            f"{row['profile']['total']:.2f}",
            *(f"{100 * row['profile'][part] / row['profile']['total']:.0f}" for part in parts),
        )
        for row in profiles
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
            format_bytes(row["memory_bytes"]),
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
    fractions = [
        (
            "the first job",
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
        "## Many edges on one machine\n\nSeconds of FedAvg over all edges: median (minimum to maximum) of "
        "the repetitions. sheaf's seconds are for a whole run with its data, journal and files. Those of the "
        "other simulators leave out import, start-up and compilation: Flower and pfl-research count the mean "
        "round but the first, FedJAX a run after one round that compiles.\n\n"
        + table(("job", *sides.values()), lines)
        + "\n\nSpeed-up of sheaf over the others and over the faster bare loop: from the medians (minimum to "
        "maximum turn by turn):\n\n"
        + table(("job", *rivals.values()), factors)
        + _starts(jobs, sides)
        + _optional(
            "The physical limit: multiply-adds of training, the machine's measured peak (a product of two "
            "512 x 512 float32 matrices), and the fraction of it that a whole run of sheaf reached:",
            ("job", "multiply-adds, 1e9", "peak, 1e9/s", "reached"),
            limits,
        )
        + _optional(
            "Processor seconds of a run of sheaf, over all threads, and their parts in percent "
            "(`python -m benchmarks.simulation profile`):",
            ("job", "seconds", *parts),
            spent,
        )
        + "\n\nAccuracy of the last average:\n\n"
        + table(("job", *sides.values()), accuracies)
        + "\n\nScaling with the number of edges: one hidden layer on MNIST, 6 rounds with all edges, 60 "
        "training images per edge and 10 per edge to evaluate the average. Milliseconds per round without "
        "the first, median (minimum to maximum):\n\n"
        + table(
            ("edges", "round, ms", "per edge, ms", "per additional edge, ms", "run, s", "peak memory"),
            growth,
        )
        + "\n\nCPU cores used by other processes during the measurement (including Flower's own), median "
        "(minimum to maximum):\n\n"
        + table(("job", *sides.values()), others)
        + "\n\nA merge in float64 compared with a plain copy of the same bytes, in ms. The merge reads "
        "updates from memory or from files. One copy writes all updates to the same buffer, which stays in "
        "the cache; the other writes each update to its own buffer. At the commit below, the addition was "
        "compiled; it no longer is:\n\n"
        + table(
            (
                "job",
                "copy to one buffer, 1 thread",
                "2 threads",
                "to separate buffers, 1 thread",
                "2 threads",
                "merge",
                "merge from files",
                "speed relative to the first copy",
                "to the second",
            ),
            merges,
        )
        + "\n\nThe cost of the journal. *fraction* is the fraction of a run's time spent journaling, even if "
        "other sites train meanwhile. *with* and *without* are seconds of runs with a journal and with one "
        "that stores nothing, alternating; *lost* is the median over the pairs:\n\n"
        + table(("job", "fraction", "minimum to maximum", "with, s", "without, s", "lost"), fractions)
        + _optional(
            "A recorded step of a stack whose updates are fused with the gradients, one that updates each "
            "site right after its gradient, and one that updates all sites at the end: microseconds of "
            "processor time for each site, median (quartiles):",
            ("sites", "fused", "by site", "at the end", "gain of fused"),
            [
                (
                    depth,
                    *(_quartiles(each, order) for order in ("fused", "by_site", "at_end")),
                    f"{each['vs_at_end']:.2f}x",
                )
                for row in rows
                for depth, each in row.get("depths", {}).items()
            ],
        )
        + _optional(
            "A job of one site by itself, such as the cloud's, with plain steps and with recorded ones, the "
            "recording included: milliseconds of processor time, median (quartiles):",
            ("steps", "plain", "recorded", "gain"),
            [
                (steps, _quartiles_ms(each, "plain"), _quartiles_ms(each, "recorded"), f"{each['gain']:.2f}x")
                for row in rows
                for steps, each in row.get("by_steps", {}).items()
            ],
        )
        + "\n\nCommits at which the jobs were last measured: "
        + commits((_on_machine(row), row["commit"]) for row in rows)
        + "."
    )


def _seconds(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "-"
    return with_range(side["median_s"], side["seconds"])


def _factor(row: Mapping[str, Any], rival: str) -> str:
    """Return a speed-up with its range; rows of earlier versions have no range."""
    if row.get(rival) is None:
        return "-"
    least, most = row.get("ranges", {}).get(rival, (None, None))
    return times(row[rival]) if least is None else f"{row[rival]:.2f}x ({least:.2f} to {most:.2f})"


def _quartiles(row: Mapping[str, Any], order: str) -> str:
    low, median, high = row["quartiles_us"][order]
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


def _quartiles_ms(row: Mapping[str, Any], way: str) -> str:
    low, median, high = row["quartiles_ms"][way]
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


def _starts(jobs: Rows, sides: Mapping[str, str]) -> str:
    """Return a sentence on the seconds with start-up, for the simulators that measured them."""
    found = [
        (row, title, seconds)
        for row in jobs
        for side, title in sides.items()
        for seconds in [row["sides"].get(side, {}).get("with_start_s")]
        if seconds
    ]
    listed = "; ".join(
        f"{title} {median:.1f} s, {median / row['sides']['sheaf']['median_s']:.1f}x ({row['job']})"
        for row, title, seconds in found
        for median in [statistics.median(seconds)]
    )
    return f"\n\nIncluding start-up: {listed}." if listed else ""


def _on_machine(row: Mapping[str, Any]) -> str:
    return f"{row['job']}, on {row['cpu']}" if "cpu" in row else str(row["job"])


def _optional(introduction: str, heading: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a table with its introduction, or nothing without lines."""
    return f"\n\n{introduction}\n\n{table(heading, lines)}" if lines else ""


def _further(smaller: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Return the additional milliseconds per round and additional edge."""
    return float(1000 * (row["round_s"] - smaller["round_s"]) / (row["edges"] - smaller["edges"]))


def _others(side: Mapping[str, Any] | None) -> str:
    return "-" if side is None else with_range(statistics.median(side["others"]), side["others"])
