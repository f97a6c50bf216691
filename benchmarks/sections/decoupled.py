"""Each step of decoupled training beside its honest rivals."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, commits, table, times, with_seeds
from sheaf.report.tables import size, spread


def decoupled(rows: Rows) -> str:
    """Each step of decoupled training beside its honest rivals."""
    parts = ["## Decoupled training, step by step"]
    for name in dict.fromkeys(row["name"] for row in rows):
        of = [row for row in rows if row["name"] == name]
        seeds = len({row["seed"] for row in of})
        lines = []
        for step in dict.fromkeys(row["step"] for row in of):
            runs = [row for row in of if row["step"] == step]
            first = runs[0]
            lines.append(
                (
                    with_seeds(step, runs, seeds),
                    spread([row["accuracy"] for row in runs]),
                    f"{100 * first['cloud_share']:.1f} %",
                    times(first["saved_least"]),
                    times(first["saved_weakest"]),
                    times(first["saved_sum"]),
                    times(first["saved_sum_with_cloud"]),
                    size(first["bytes"]),
                )
            )
        heading = (
            "step",
            "accuracy",
            "cloud's work",
            "saved, strongest",
            "weakest",
            "sum",
            "sum with cloud",
            "sent",
        )
        parts.append(
            f"### {name}\n\nMean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}. The cloud's work "
            "is over that of `central`; `saved` is multiply-adds an image of the whole model over those of "
            "the device's part, and for sums all training over that of the whole model on every device.\n\n"
            + table(heading, lines)
        )
    at = commits((row["step"], row["commit"]) for row in rows)
    parts.append(f"Each step at the last commit that it was run at: {at}.")
    return "\n\n".join(parts)
