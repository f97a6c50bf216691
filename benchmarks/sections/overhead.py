"""sheaf's loop against a bare one."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table


def overhead(rows: Rows) -> str:
    """sheaf's loop against a bare one."""
    lines = table(
        ("job", "sheaf / bare", "middle half of the pairs", "bare, s", "sheaf, s", "pairs"),
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
    title = "## What the loop costs beyond a bare one"
    return f"{title}\n\nRatio of the medians; both end with the same bits.\n\n{lines}"
