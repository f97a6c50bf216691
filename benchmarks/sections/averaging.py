"""How averaging affects each edge, and which remedies help."""

from __future__ import annotations

import statistics

from benchmarks.sections._tables import Rows, commits, table, with_seeds
from sheaf.report.formatting import format_bytes, format_count, format_mean


def averaging(rows: Rows) -> str:
    """Return the section."""
    parts = [
        "## When averaging hurts an edge\n\n"
        "- *least gain*: the gain of an edge is its final accuracy minus the accuracy of ECAvg's edge before "
        "the update at the same seed. The column is the smallest gain of a run, averaged over the seeds.\n"
        "- *ended worse*: the number of edges, over all seeds, whose final accuracy is below their own "
        "`before update` by more than the standard error of their test set. Methods without an update have "
        "no such number.\n"
        "- *average*: the cloud's accuracy before fine-tuning (after the refit, if there is one).\n"
        "- *ecavg, REMEDY* is `ecavg_plus` with this remedy only: *alpha* is the loss `restricted_softmax`, "
        "*tail* is `average_last` of retraining, *cloud's tail* of fine-tuning, *annealed* a cosine "
        "schedule of both, *guard* the `mixtures`."
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
                    *(format_mean([row[key] for row in runs]) for key in ("mean_edge", "worst_edge")),
                    f"{statistics.mean(row['worst_edge_gain'] for row in runs):+.4f}",
                    f"{sum(worse)} of {edges}" if worse else "-",
                    *(
                        format_mean([row[key] for row in runs if row[key] is not None])
                        for key in ("average", "cloud_accuracy")
                    ),
                    format_bytes(runs[0]["bytes"]),
                    format_count(runs[0]["edge_macs"]),
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
    parts.append(f"Commits at which the methods were last run: {at}.")
    parts.append(
        "### The gain of each edge\n\nOne point per edge and seed.\n\n"
        "![Gain of every edge with ECAvg and with ecavg_plus, one panel per experiment](pictures/gains.svg)"
    )
    parts.append(
        "### Accuracy against bytes\n\n`ecavg_plus` with 1, 5, 20 and 100 % of each edge's images shared; "
        "error bars are one standard deviation.\n\n"
        "![Accuracy of the edges and of the cloud against megabytes sent](pictures/sharing.svg)"
    )
    return "\n\n".join(parts)
