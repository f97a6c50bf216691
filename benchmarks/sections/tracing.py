"""The time that tracing and cutting a shipped model takes."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table, with_range
from sheaf.report.formatting import format_bytes


def tracing(rows: Rows) -> str:
    """Return the section."""
    lines = [
        (
            row["name"],
            with_range(row["traced"], row["all_traced"]),
            with_range(row["cut"], row["all_cut"]),
            format_bytes(row["memory"]),
        )
        for row in rows
    ]
    return (
        "## The cost of tracing a model\n\nTracing happens once per model, and cutting once per distinct "
        "cut, whatever the number of devices. Models have the width and image size of the paper or of the "
        "variant. Each repetition runs in a new process. Seconds are median (minimum to maximum); memory is "
        "the peak without the model "
        "itself.\n\n" + table(("model", "trace, s", "cut to a quarter, s", "memory"), lines)
    )
