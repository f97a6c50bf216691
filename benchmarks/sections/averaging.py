"""What averaging does to each edge, and what helps."""

from __future__ import annotations

import statistics

from benchmarks.sections._tables import Rows, commits, table, with_seeds
from sheaf.report.tables import count, size, spread


def averaging(rows: Rows) -> str:
    """What averaging does to each edge, and what helps."""
    parts = [
        "## When averaging hurts an edge\n\nAn edge's gain is what it ends with, less what ECAvg's edge has "
        "before the update at the same seed; accuracies are on the test images of an edge's own classes. "
        "`ended worse`: of all edges over all seeds, those that end below their own `before update` by more "
        "than the standard error of their test set (methods without an update have none). `average` is the "
        "cloud's accuracy before any fine-tuning step (after the refit where there is one)."
    ]
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        of = [row for row in rows if row["experiment"] == experiment]
        seeds = len({row["seed"] for row in of})
        lines = []
        for method in dict.fromkeys(row["method"] for row in of):
            runs = [row for row in of if row["method"] == method]
            edges = sum(len(row["gains"]) for row in runs)
            worse = [row["edges_worse"] for row in runs if row["edges_worse"] is not None]
            lines.append(
                (
                    with_seeds(method, runs, seeds),
                    *(spread([row[key] for row in runs]) for key in ("mean_edge", "worst_edge")),
                    f"{statistics.mean(row['worst_edge_gain'] for row in runs):+.4f}",
                    f"{sum(worse)} of {edges}" if worse else "-",
                    *(
                        spread([row[key] for row in runs if row[key] is not None])
                        for key in ("average", "cloud_accuracy")
                    ),
                    size(runs[0]["bytes"]),
                    count(runs[0]["edge_macs"]),
                )
            )
        heading = (
            "method",
            "edges, mean",
            "worst edge",
            "least gain",
            "ended worse",
            "average",
            "cloud",
            "sent",
            "edges' work",
        )
        parts.append(
            f"### {experiment}\n\nMean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}.\n\n"
            + table(heading, lines)
        )
    at = commits((row["method"], row["commit"]) for row in rows)
    parts.append(f"Each method at the last commit that it was run at: {at}.")
    parts.append(
        "### The gain of each edge\n\nA point for each edge of each seed.\n\n"
        "![Gains of every edge, by ECAvg and by ecavg_plus, a panel for each experiment](pictures/gains.svg)"
    )
    parts.append(
        "### Accuracy against bytes\n\n`ecavg_plus` with 1, 5, 20 and 100 % of each edge's images shared; "
        "bars are one standard deviation.\n\n"
        "![Accuracy of the edges and of the cloud against the megabytes sent](pictures/sharing.svg)"
    )
    return "\n\n".join(parts)
