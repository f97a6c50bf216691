"""Tables for the terminal, and the verdict above them. None is wider than the console."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sheaf.core.time_format import format_seconds
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import Summary
from sheaf.experiments.plan import Planned
from sheaf.experiments.speed import Estimate
from sheaf.report.fitted_table import Column, FirstThatFits, FittedTable
from sheaf.report.formatting import (
    MAX_LISTED,
    format_bytes,
    format_count,
    format_duration,
    format_mean,
    format_number_of,
    format_ratio,
)
from sheaf.report.stages import Repetition, stage_label
from sheaf.report.verdict import verdict
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Result, Row

SUMMARIZED = 5
"""From this number of edges on, a table has their mean, worst, best and spread instead of each edge."""

Combine = Callable[[Sequence[float]], float]
"""Combines a figure of several devices: their mean, or the largest."""

ROUNDS = 6
"""From this number of rounds on, a table has the first and the last one only."""


def verdict_lines(result: Result) -> Group:
    """Return the verdict on a run: a line for each topic."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column()
    for finding in verdict(result).findings:
        grid.add_row(Text(finding.topic), Text(finding.text.replace("\u00a0", "")))
    return Group(Text("Verdict", style="bold"), grid, Text())


def accuracy_table(result: Result, every: bool = False, title: str = "Accuracy of each model") -> Group:
    """Return the papers' table: accuracy, precision, recall and F1 of each device at each stage.

    Args:
        result: the run's result.
        every: a row for each edge and round, however many there are.
        title: of the table.
    """
    stages = list(_stages(result.rows))
    last = max((number for _, number, _ in stages), default=1)
    numbered = {stage for stage, number, _ in stages if number > 1}
    sites = {row.site for _, _, rows in stages for row in rows} - {CLOUD}
    summarized = len(sites) >= SUMMARIZED and not every
    table = FittedTable(_SUMMARIES if summarized else _EACH)
    skipped = last >= ROUNDS and not every
    for stage, number, rows in stages:
        if skipped and 1 < number < last:
            continue
        reference = rows[0].reference
        label = stage_label(stage) + f" ({number})" * (stage in numbered)
        style = "dim" if reference else ""
        if not summarized:
            for row in rows:
                table.add_row(row.site, label, *_figures(row), style=style)
            continue
        edges = [row for row in rows if row.site != CLOUD]
        if edges:
            table.add_row(format_number_of(len(edges), "edge"), label, *_summary(edges), style=style)
        for row in (row for row in rows if row.site == CLOUD):
            figures = _figures(row)
            table.add_row(row.site, label, figures[0], "", "", "", *figures[1:], style=style)
    notes = ["accuracy, precision, recall, F1: on the test images of the device's own classes"]
    if references := dict.fromkeys(stage_label(row.stage) for row in result.rows if row.reference):
        notes.append(f"for comparison, without effect on the other models: {', '.join(references)}")
    if summarized:
        notes.append("spread: standard deviation over the edges; other columns: mean; --all prints each edge")
    if skipped:
        notes.append(f"rounds 2 to {last - 1:,} are not shown; --all prints them")
    return _titled(title, table, *notes)


_SCORES = (
    Column("precision", 7),
    Column("recall", 8),
    Column("F1", 5),
    Column("all\nclasses", 2),
    Column("images", 6),
)
_EACH = (Column("device", right=False), Column("stage", right=False), Column("accuracy"), *_SCORES)
_SUMMARIES = (
    *_EACH[:2],
    Column("accuracy,\nmean"),
    Column("worst", 1),
    Column("best", 3),
    Column("spread", 4),
    *_SCORES,
)


def _stages(rows: Sequence[Row]) -> Iterator[tuple[str, int, list[Row]]]:
    """Yield (stage, round, rows) in order, without repetitions."""
    is_repeated = Repetition()
    for (stage, number), group in groupby(rows, lambda row: (row.stage, row.round)):
        measured = list(group)
        if not is_repeated(measured):
            yield stage, number, measured


def _figures(row: Row) -> list[str]:
    scores = (row.accuracy, row.precision, row.recall, row.f1, row.accuracy_all)
    return [*("-" if score is None else f"{score:.4f}" for score in scores), f"{row.examples:,}"]


def _summary(edges: Sequence[Row]) -> list[str]:
    """Return mean, worst, best and spread of the accuracies, and the means of the other figures."""
    values = [row.accuracy for row in edges]
    on_all = [row.accuracy_all for row in edges if row.accuracy_all is not None]
    mean = replace(
        edges[0],
        accuracy=statistics.mean(values),
        precision=statistics.mean(row.precision for row in edges),
        recall=statistics.mean(row.recall for row in edges),
        f1=statistics.mean(row.f1 for row in edges),
        accuracy_all=statistics.mean(on_all) if on_all else None,
        examples=round(statistics.mean(row.examples for row in edges)),
    )
    figures = _figures(mean)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return [figures[0], f"{min(values):.4f}", f"{max(values):.4f}", f"{spread:.4f}", *figures[1:]]


def cost_table(sites: Mapping[str, SiteCost], every: bool = False) -> Group:
    """Return the table of computation and traffic per device, the cloud included.

    Args:
        sites: device -> its cost.
        every: a row for each edge, however many there are.
    """
    shared, noised = _shares_samples(sites), _adds_noise(sites)
    columns = (*_cost_columns(shared, noised), Column("seconds", 3), Column("peak memory", 5))

    def figures(costs: Sequence[SiteCost], join: Combine) -> list[str]:
        return [
            *_cost_figures(costs, join, shared, noised),
            f"{join([cost.seconds for cost in costs]):.1f}",
            format_bytes(peak) if (peak := join([cost.peak_memory_bytes for cost in costs])) else "-",
        ]

    table, notes = _per_device(columns, sites, figures, every)
    return _titled("Cost of each device", table, *notes)


def estimate_table(estimate: Estimate, every: bool = False) -> Group:
    """Return the table of computation, traffic and time that each device would spend.

    Args:
        estimate: the estimate for a run.
        every: a row for each edge, however many there are.
    """
    sites = {site: replace(cost, seconds=estimate.seconds[site]) for site, cost in estimate.sites.items()}

    shared, noised = _shares_samples(sites), _adds_noise(sites)

    def figures(costs: Sequence[SiteCost], join: Combine) -> list[str]:
        return [*_cost_figures(costs, join, shared, noised), f"{join([cost.seconds for cost in costs]):.1f}"]

    table, notes = _per_device((*_cost_columns(shared, noised), Column("seconds", 3)), sites, figures, every)
    total = f"about {format_seconds(sum(estimate.seconds.values()))} of training in all"
    if estimate.baselines:
        total += f", and {format_seconds(estimate.baselines)} for the baselines"
    time_note = f"seconds: from a measured step on this machine, one device after another; {total}"
    return _titled("Each device would spend", table, *notes, time_note)


def _shares_samples(sites: Mapping[str, SiteCost]) -> bool:
    """Return whether training samples leave a device."""
    return any(cost.samples_sent for cost in sites.values())


def _adds_noise(sites: Mapping[str, SiteCost]) -> bool:
    """Return whether statistics with noise leave a device."""
    return any(cost.epsilon is not None for cost in sites.values())


def _cost_columns(shared: bool, noised: bool) -> list[Column]:
    return [
        Column("device", right=False),
        Column("mult-adds/image", 4),
        Column("in training", 2),
        *([Column("images\nsent")] if shared else []),
        *([Column("ε")] if noised else []),
        Column("sent"),
        Column("received", 1),
    ]


def _cost_figures(costs: Sequence[SiteCost], join: Combine, shared: bool, noised: bool) -> list[str]:
    images = join([cost.samples_sent or 0 for cost in costs])
    return [
        format_count(join([cost.macs_per_example for cost in costs])),
        format_count(join([cost.train_macs for cost in costs])),
        *([f"{images:,.0f}"] if shared else []),
        *([_epsilon(costs, join)] if noised else []),
        format_bytes(join([cost.bytes_sent for cost in costs])),
        format_bytes(join([cost.bytes_received for cost in costs])),
    ]


def _epsilon(costs: Sequence[SiteCost], join: Combine) -> str:
    """Return the joined privacy loss of the sites that sent statistics with noise; ``-`` if none did."""
    losses = [cost.epsilon for cost in costs if cost.epsilon is not None]
    return f"{join(losses):.3g}" if losses else "-"


def _per_device(
    columns: Sequence[Column],
    sites: Mapping[str, SiteCost],
    figures: Callable[[Sequence[SiteCost], Combine], list[str]],
    every: bool,
) -> tuple[FittedTable, list[str]]:
    """Return a table with a row for each device, or for mean and maximum of many edges; and its notes."""
    table, notes = FittedTable(columns), []
    edges = [site for site in sites if site != CLOUD]
    if len(edges) >= SUMMARIZED and not every:
        costs = [sites[site] for site in edges]
        table.add_row("edges, mean", *figures(costs, statistics.mean))
        table.add_row("edges, most", *figures(costs, max))
        notes.append(f"most: the largest figure of any of the {len(edges):,} edges; --all prints each edge")
    else:
        for site in edges:
            table.add_row(site, *figures([sites[site]], max))
    table.add_row(CLOUD, *figures([sites[CLOUD]], max))
    return table, notes


def split_table(split: Mapping[str, Sequence[int]], classes: Sequence[str], every: bool = False) -> Group:
    """Return the table of training images per class and edge.

    Few edges are columns, with a row for each class, if the console is wide enough. Otherwise each edge is a
    row with its largest classes; of many edges the smallest, the median and the largest are listed.
    """
    title = "Training images of each class on each edge"
    rows = FittedTable(
        [
            Column("edge", right=False),
            Column("largest classes", 2, right=False),
            Column("classes", 1),
            Column("images"),
        ]
    )
    listed = list(split)
    notes = []
    if len(listed) > MAX_LISTED and not every:
        ordered = sorted(split, key=lambda site: sum(split[site]))
        listed = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
        notes = [f"the smallest, the median and the largest of {len(split):,} edges; --all prints each edge"]
    for site in listed:
        counts = split[site]
        present = sorted(((n, name) for n, name in zip(counts, classes, strict=True) if n), reverse=True)
        largest = ", ".join(f"{name} ({n:,})" for n, name in present[:4]) + ", …" * (len(present) > 4)
        rows.add_row(site, largest, str(len(present)), f"{sum(counts):,}")
    if len(split) > 7 or len(classes) > MAX_LISTED:
        return _titled(title, rows, *notes)
    table = FittedTable([Column("class", right=False), *(Column(site) for site in split)])
    for k, name in enumerate(classes):
        table.add_row(name, *(f"{counts[k]:,}" if counts[k] else "-" for counts in split.values()))
    table.add_row("all", *(f"{sum(counts):,}" for counts in split.values()), style="bold")
    return _titled(title, FirstThatFits(table, rows), *notes)


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
    main = _titled(title, table, *notes)
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
    return _titled(
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
    return _titled(
        "Work saved by methods that cut the model",
        table,
        "weakest, strongest device: multiply-adds per image of the whole model / of its sub-model",
        "all edges (and cloud): multiply-adds to train the whole model on every edge / actual ones",
    )


def plan_table(planned: Sequence[Planned]) -> Group:
    """Return the table of planned sub-models: width, cost, and the budget that limits the width."""
    table = FittedTable(
        [
            Column("device", right=False),
            Column("classes", 6),
            Column("width"),
            Column("mult-adds", 1),
            Column("saved", 3),
            Column("parameters", 5),
            Column("memory", 4),
            Column("s/epoch", 2),
            Column("limited by", 0, right=False),
        ]
    )
    for part in planned:
        needs = part.needs
        table.add_row(
            part.site,
            str(part.classes),
            f"{part.width:.3f}",
            format_count(needs.macs),
            format_ratio(part.saved),
            format_count(needs.parameters),
            format_bytes(needs.memory),
            f"{needs.seconds:.2g}" if needs.seconds else "-",
            part.limited_by or "full width",
        )
    return _titled(
        "Widest sub-model within each device's budget, and what training it would spend",
        table,
        "s/epoch: seconds of an epoch over the device's images, from a measured step on this machine or the "
        "speed in its budget",
    )


def row_line(row: Row) -> str:
    """Return one measurement as a line of text."""
    on_all = "" if row.accuracy_all is None else f"  all classes {row.accuracy_all:.4f}"
    return f"{row.site:<12} {stage_label(row.stage):<18} accuracy {row.accuracy:.4f}{on_all}"


def _titled(title: str, table: RenderableType, *notes: str) -> Group:
    return Group(Text(title, style="bold"), table, *(Text(note, style="dim") for note in notes), Text())
