"""Tables for the terminal that compare methods."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group

from sheaf.experiments.compare import Summary
from sheaf.report.fitted_table import Column, FittedTable, titled
from sheaf.report.formatting import (
    format_bytes,
    format_count,
    format_duration,
    format_mean,
    format_ratio,
)


def comparison_table(summaries: Sequence[Summary]) -> Group:
    """Return the table of accuracies and costs per method, and the table of saved computation."""
    table = FittedTable(
        [
            Column("method", right=False),
            Column("edges, mean"),
            Column("worst edge", 1),
            Column("cloud", 2),
            Column("images\nsent", 3),
            Column("bytes\nsent", 4),
            Column("traffic", 6),
            Column("edges'\nwork", 5),
            Column("cloud's\nwork", 7),
        ]
    )
    for summary in summaries:
        table.add_row(
            summary.method + " (changed)" * bool(summary.changes),
            format_mean(summary.mean_edge),
            format_mean(summary.worst_edge),
            format_mean(summary.cloud),
            "-" if summary.images is None else f"{summary.images:,.0f}",
            "-" if summary.bytes_up is None else format_bytes(summary.bytes_up),
            format_bytes(summary.bytes),
            format_count(summary.edge_macs),
            format_count(summary.cloud_macs),
        )
    seeds = summaries[0].seeds
    notes = [
        "edges: accuracy on the test images of each edge's own classes; cloud: on all classes",
        "sent: by the edges; traffic: bytes in both directions, start weights included; work: multiply-adds "
        "of all training",
    ]
    if seeds > 1:
        notes.insert(0, f"±: standard deviation over the {seeds} seeds")
    title = "Methods under one training budget"
    if summaries[0].per is not None:
        title = "Methods when the budget was spent"
    if changed := next((summary for summary in summaries if summary.changes), None):
        title += f": that of the experiment with {', '.join(changed.changes)}"
    main = titled(title, table, *notes)
    if summaries[0].per is not None:
        main = Group(_budget_table(summaries), main)
    cut = [summary for summary in summaries if any(round(ratio, 1) != 1 for ratio in summary.saved.values())]
    return Group(main, _saved_table(cut)) if cut else main


def _budget_table(summaries: Sequence[Summary]) -> Group:
    """Return the ranking of the methods by their accuracy at the same budget."""
    table = FittedTable([Column("rank"), Column("method", right=False), Column("accuracy at the budget")])
    for rank, summary in enumerate(summaries, start=1):
        accuracy = format_mean(summary.at_budget) if summary.at_budget else "no measurement"
        table.add_row(str(rank), summary.method, accuracy)
    per, budget = summaries[0].per, summaries[0].budget or 0.0
    amount = {"seconds": format_duration, "bytes": format_bytes}.get(str(per))
    text = f"{format_count(budget)} joules of the edges" if amount is None else amount(budget)
    return titled(
        f"Methods at the same budget of {per}: {text}",
        table,
        "accuracy: the last one measured within the budget, of the cloud's model on all classes; without "
        "one, the edges' mean on their own classes",
    )


def _saved_table(summaries: Sequence[Summary]) -> Group:
    table = FittedTable(
        [
            Column("method", right=False),
            Column("weakest"),
            Column("strongest", 1),
            Column("all edges", 2),
            Column("edges and cloud", 3),
        ]
    )
    for summary in summaries:
        each = sorted(summary.saved.values())
        values = (each[-1], each[0], summary.saved_sum, summary.saved_sum_with_cloud)
        table.add_row(summary.method, *("-" if value is None else format_ratio(value) for value in values))
    return titled(
        "Work saved by methods that cut the model",
        table,
        "weakest, strongest device: multiply-adds per image of the whole model / of its sub-model",
        "all edges (and cloud): multiply-adds to train the whole model on every edge / actual ones",
    )
