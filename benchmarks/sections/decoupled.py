"""The steps of decoupled training, compared with central training of equal work."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, commits, table, times, with_seeds
from sheaf.report.formatting import format_bytes, format_mean


def decoupled(rows: Rows) -> str:
    """Return the section."""
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
                    format_mean([row["accuracy"] for row in runs]),
                    f"{100 * first['cloud_share']:.1f} %",
                    times(first["saved_least"]),
                    times(first["saved_weakest"]),
                    times(first["saved_sum"]),
                    times(first["saved_sum_with_cloud"]),
                    format_bytes(first["bytes"]),
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
            f"### {name}\n\nMean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}, "
            f"{of[0]['images']:,} training images. *cloud's work* is relative to `central`. *saved* for the "
            "devices with the strongest and the weakest sub-model "
            "is multiply-adds per image of the whole model divided by those of the sub-model. For the sums "
            "it is the training work of the whole model on every device divided by the work actually "
            "done.\n\n" + table(heading, lines)
        )
    at = commits((row["step"], row["commit"]) for row in rows)
    parts.append(f"Commits at which the steps were last run: {at}.")
    return "\n\n".join(parts)
