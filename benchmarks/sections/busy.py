"""Training beside other work, by the waiting of OpenMP's threads."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table


def busy(rows: Rows) -> str:
    """Return the section."""
    lines = table(
        ("model", "setting", "quiet, steps/s", "beside one busy core, steps/s", "busy / quiet"),
        (
            (
                row["model"],
                row["setting"],
                f"{row['quiet']:.3g}",
                f"{row['busy']:.3g}",
                f"{row['busy'] / row['quiet']:.2f}",
            )
            for row in rows
        ),
    )
    title = "## Training beside other work"
    return (
        f"{title}\n\nOne site trains in mini-batches of 64, undisturbed and beside one process that computes "
        "without end. Waiting threads of OpenMP spin for some rounds before they sleep. All settings of "
        "two threads end with the same bits. sheaf's default is in `sheaf/core/openmp.py`."
        f"\n\n{lines}"
    )
