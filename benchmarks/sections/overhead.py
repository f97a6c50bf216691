"""sheaf's training loop compared with a minimal PyTorch loop."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table


def overhead(rows: Rows) -> str:
    """Return the section."""
    lines = table(
        ("job", "sheaf / bare", "interquartile range", "bare, s", "sheaf, s", "pairs"),
        (
            (
                row["name"],
                f"{row['ratio']:.3f}",
                f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}",
                f"{row['bare_s']:.2f}",
                f"{row['sheaf_s']:.2f}",
                row["pairs"],
            )
            for row in rows
        ),
    )
    title = "## The overhead of the training loop"
    return (
        f"{title}\n\nsheaf's loop compared with a minimal PyTorch loop (*bare*): ratio of the median "
        f"seconds. Both end with the same bits.\n\n{lines}"
    )
