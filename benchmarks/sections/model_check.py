"""The time that the check of a user's model takes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.sections._tables import Rows, table


def model_check(rows: Rows) -> str:
    """Return the section."""
    lines = [
        (
            row["name"],
            _in_ms(row["check"], row["all_check"]),
            _in_ms(row["steps"], row["all_steps"]),
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    return (
        "## The cost of the check of a user's model\n\nThe check runs once before training, and its "
        "result is cached. Milliseconds of the processor on one thread, median (minimum to maximum).\n\n"
        + table(("model", "check, ms", "ten steps of a batch of two, ms", "ratio"), lines)
    )


def _in_ms(median: float, seconds: Sequence[float]) -> str:
    return f"{1e3 * median:.0f} ({1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f})"
