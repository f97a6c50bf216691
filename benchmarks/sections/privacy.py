"""Accuracy of a head from statistics against the privacy budget."""

from __future__ import annotations

from benchmarks.sections._tables import Rows, table
from sheaf.report.formatting import format_mean


def privacy(rows: Rows) -> str:
    """Return the section."""
    budgets = dict.fromkeys(row["epsilon"] for row in rows)
    lines = [
        (
            "without noise" if epsilon is None else f"{epsilon:g}",
            format_mean([row["refitted"] for row in rows if row["epsilon"] == epsilon]),
        )
        for epsilon in budgets
    ]
    average = format_mean([row["average"] for row in rows if row["epsilon"] is None])
    seeds = len({row["seed"] for row in rows})
    return (
        "## A head from statistics, by privacy budget\n\n"
        "MNIST, two edges with five classes and 1,800 images each, one hidden layer; no image leaves an "
        "edge. The cloud averages the edges' models and fits the classifier by LDA to class counts, class "
        "sums and the second moment, with the noise of the Gaussian mechanism (delta 1e-5). "
        f"{seeds} seeds. The average before the fit reaches {average}. Epsilon covers the statistics, not "
        "the trained models.\n\n"
        f"{table(('epsilon', 'cloud, all classes'), lines)}\n\n"
        "![Accuracy against epsilon](pictures/privacy.svg)"
    )
