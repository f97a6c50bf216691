"""How long a shipped model takes to trace and to cut."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table, with_range
from sheaf.report.tables import size


def tracing(rows: Rows) -> str:
    """How long a shipped model takes to trace and to cut."""
    lines = [
        (
            row["name"],
            with_range(row["traced"], row["all_traced"]),
            with_range(row["cut"], row["all_cut"]),
            size(row["memory"]),
        )
        for row in rows
    ]
    return (
        "## What tracing a model takes\n\nOnce for each model, and once for each cut, however many devices "
        "have it. At the width and image size of the paper or of the variant, each repeat in a process of "
        "its own; seconds are the median (least to most), memory is the peak beyond the model itself.\n\n"
        + table(("model", "trace, s", "a quarter's cut, s", "memory"), lines)
    )
