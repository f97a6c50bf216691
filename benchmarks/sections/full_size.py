"""The papers' experiments at full size: one table for each kind of job."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.sections._tables import Rows, commits, table, times
from sheaf.report.formatting import format_bytes, format_mean
from sheaf.report.paper_results import paper_experiments

PAPER = {
    (str(experiment["experiment"])[0], device, stage): accuracy
    for experiment in paper_experiments()
    for device, stage, accuracy, *_ in experiment["rows"]
}
"""(number of ECAvg's experiment, device, stage) -> accuracy in Mih et al. 2023."""

BLAZEFL_SECONDS = 30
"""For the simulation on an H100, without preparing the data (arXiv:2604.03606)."""


def full_size(rows: Rows) -> str:
    """Return the section."""
    parts = [
        "## The papers' experiments at full size\n\n"
        "Run by one script within minutes. *seconds* count the whole run, with its data and evaluations."
    ]
    parts += [f"### {heading}\n\n{text}" for heading, text in _tables(rows)]
    parts.append(f"Commits: {commits((row['job'], str(row['commit'])) for row in rows)}.")
    return "\n\n".join(parts)


def lines_of_jobs(rows: Rows) -> list[str]:
    """Return a line for each table of the section, and for each of its rows; for a terminal."""
    return [line for heading, text in _tables(rows) for line in (f"{heading}:", *text.splitlines(), "")]


def _tables(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield heading and table of each kind of job that has rows."""
    kinds = {
        "Tests that need CUDA": ("failed", _tests),
        "Methods that train the whole model": ("stage", _stages),
        "Decoupled training": ("step", _decoupled),
        "Simulation": ("clients", _simulation),
        "ECAvg and decoupled training beside their rivals": ("protocol", _rivals),
    }
    for heading, (column, lines) in kinds.items():
        if of := [row for row in rows if column in row]:
            yield heading, lines(of)


def _runs(rows: Rows, *names: str) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """Yield (job, device, these columns) and the rows that have them: one for each seed."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row["job"], row["device"], *(str(row[name]) for name in names)), []).append(number)
    for key, numbers in groups.items():
        yield key, [rows[number] for number in numbers]


def _seconds(runs: Rows) -> str:
    known = [row["seconds"] for row in runs if row["seconds"] is not None]
    return f"{statistics.fmean(known):.0f}" if known else "-"


def _accuracy(runs: Rows, name: str = "accuracy") -> str:
    return format_mean([row[name] for row in runs if row[name] is not None])


def _tests(rows: Rows) -> str:
    lines = [
        (row["device"], row["passed"], row["failed"], row["skipped"], f"{row['seconds']:.0f}") for row in rows
    ]
    return table(("device", "passed", "failed", "skipped", "seconds"), lines)


def _stages(rows: Rows) -> str:
    lines: list[Sequence[object]] = []
    for (job, device, site, stage), runs in _runs(rows, "site", "stage"):
        of_paper = runs[0]["method"] == "ecavg" and PAPER.get((job.removeprefix("ECAvg ")[:1], site, stage))
        lines.append(
            (
                job,
                device,
                f"{runs[0]['images']:,}",
                site,
                stage,
                _accuracy(runs),
                _accuracy(runs, "accuracy_all"),
                f"{of_paper:.4f}" if of_paper else "-",
                _seconds(runs),
            )
        )
    heading = (
        "job", "device", "images", "site", "stage", "own classes", "all classes", "paper", "seconds",
    )  # fmt: skip
    return table(heading, lines)


def _decoupled(rows: Rows) -> str:
    lines = [
        (
            job,
            device,
            f"{runs[0]['images']:,}",
            step,
            _accuracy(runs),
            _accuracy(runs, "central"),
            _accuracy(runs, "own_classes"),
            _accuracy(runs, "central_own_classes"),
            times(runs[0]["saved_least"]),
            times(runs[0]["saved_weakest"]),
            times(runs[0]["saved_sum_with_cloud"]),
            _seconds(runs),
        )
        for (job, device, step), runs in _runs(rows, "step")
    ]
    heading = (
        "job", "device", "images", "step", "accuracy", "central", "devices, own classes",
        "central, own classes", "saved, strongest", "weakest",
        "sum with cloud", "seconds",
    )  # fmt: skip
    return table(heading, lines)


def _simulation(rows: Rows) -> str:
    lines = [
        (job, device, runs[0]["clients"], runs[0]["rounds"], _accuracy(runs), _seconds(runs))
        for (job, device), runs in _runs(rows)
    ]
    text = table(("job", "device", "clients", "rounds", "accuracy", "seconds"), lines)
    return f"{text}\n\nBlazeFL reports about {BLAZEFL_SECONDS} s on an H100, without preparing the data."


def _rivals(rows: Rows) -> str:
    lines = [
        (
            protocol,
            method,
            device,
            _accuracy(runs, "edges_mean"),
            _accuracy(runs, "worst_edge"),
            _accuracy(runs, "cloud"),
            format_bytes(statistics.fmean(row["bytes"] for row in runs)),
            f"{statistics.fmean(row['images_sent'] for row in runs):,.0f}",
            times(runs[0]["saved_weakest"]),
            _seconds(runs),
        )
        for (_, device, protocol, method), runs in _runs(rows, "protocol", "method")
    ]
    heading = (
        "protocol", "method", "device", "edges, mean", "worst edge", "cloud", "sent", "images", "saved",
        "seconds",
    )  # fmt: skip
    return (
        f"{table(heading, lines)}\n\n"
        "Protocols and methods of `benchmarks/rivals.py` with all images of CIFAR-10: A and B with four "
        "times the channels, C with images of 64x64. The learning rates are those found on the small size."
    )
