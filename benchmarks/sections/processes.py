"""Training by two processes compared with one."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table, with_range


def processes(rows: Rows) -> str:
    """Return the section."""
    lines = table(
        (
            "job",
            "processes",
            "seconds (range)",
            "times as fast as one",
            "bits of one",
            "memory, MB: resident, unique",
            "of the other process",
        ),
        (
            (
                row["name"],
                row["processes"],
                with_range(row["seconds"], row["all_seconds"]),
                f"{row['vs_one']:.2f}",
                "yes" if row["same_bits"] else "no",
                _megabytes(row["memory"]),
                _megabytes(row["memory_other"]),
            )
            for row in rows
        ),
    )
    return (
        "## Several processes\n\nOne thread in each process. Seconds are those of a round of FedAvg with its "
        "merge and its measurement, or of one epoch of the cloud's training. The unique memory lacks the "
        f"examples, which all processes map.\n\n{lines}"
    )


def _megabytes(sizes: list[int] | None) -> str:
    return "-" if sizes is None else ", ".join(f"{size / 1e6:.0f}" for size in sizes)
