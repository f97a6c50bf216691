"""The duration and the peak memory of the start of a run."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, commits, table, with_range
from sheaf.report.formatting import format_bytes


def start(rows: Rows) -> str:
    """Return the section."""
    lines = [
        (
            row["data"],
            row["version"],
            row["start"],
            with_range(row["seconds"], [each["seconds"] for each in row["all"]]),
            format_bytes(row["peak"]),
            format_bytes(row["anonymous"]),
        )
        for row in sorted(rows, key=lambda row: (row["data"], row["version"] == "after", row["start"]))
    ]
    at = commits((row["version"], row["commit"]) for row in rows)
    heading = ("data", "version", "start", "seconds", "peak memory", "without pages of files")
    return (
        "## The start of a run\n\nThe time from `sheaf run` until training begins: importing libraries, "
        "reading and splitting the data, building the model. Before a first start, the cache of decoded "
        f"examples is empty, and the files are on the disk only. The versions are {at}. Each start is "
        "a process of its own, and the versions alternate. Seconds are median (minimum to maximum); memory "
        "is the median of the peaks. Pages of files, such as those of the cache, are shared by processes "
        "and dropped when memory is short.\n\n" + table(heading, lines)
    )
