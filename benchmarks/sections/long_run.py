"""Disk and memory over the rounds of a long run."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, commits, table


def long_run(rows: Rows) -> str:
    """Return the section."""
    lines = [
        (
            row["job"],
            f"{row['seconds']:.0f}",
            "-" if row["resume_s"] is None else f"{row['resume_s']:.0f}",
            f"{row['peak_disk_mb']:.0f}",
            f"{row['log_mb']:.1f}",
            f"{row['memory_mb']:.0f}",
            f"{row['memory_growth']:+.1%}",
        )
        for row in rows
    ]
    heading = (
        "job", "seconds", "resume, s", "peak disk, MB", "journal's log, MB", "memory, MB", "growth of memory",
    )  # fmt: skip
    at = commits((row["job"], row["commit"]) for row in rows)
    return (
        "## Long runs\n\nFedAvg with 10 images an edge and weights of 400 kB. Disk is everything in the "
        "run's folder and its unnamed files. *memory* is resident at the end; its growth compares the "
        "medians of the last tenth of the rounds and of rounds 10 to 20. *resume*: the run is stopped at its "
        "last round; "
        f"resuming it replays all rounds from the journal. Commits: {at}.\n\n" + table(heading, lines)
    )
