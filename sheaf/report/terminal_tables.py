"""Tables for the terminal. None is wider than 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sheaf.core.types import CLOUD
from sheaf.experiments.compare import Summary
from sheaf.experiments.plan import Planned
from sheaf.report.formatting import MAX_LISTED, format_bytes, format_count, format_mean
from sheaf.report.stages import stage_label
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Result, Row


def accuracy_table(result: Result) -> Group:
    """Return the papers' table: accuracy, precision, recall and F1 of each device at each stage."""
    figures = ("accuracy", "precision", "recall", "F1", "all\nclasses", "images")
    table = _table(["device", "stage"], figures)
    several = max((row.round for row in result.rows), default=1) > 1
    for (stage, number), rows in groupby(result.rows, lambda row: (row.stage, row.round)):
        label = f"{stage_label(stage)} ({number})" if several else stage_label(stage)
        for device, row in _listed_rows(list(rows)):
            scores = (row.accuracy, row.precision, row.recall, row.f1, row.accuracy_all)
            table.add_row(
                Text(device), Text(label), *(f"{score:.4f}" for score in scores), f"{row.examples:,}"
            )
    return _titled("Each model on its own classes' test images; accuracy on all classes", table)


def cost_table(sites: Mapping[str, SiteCost], measured: bool = True) -> Group:
    """Return the table of computation and traffic per device.

    Args:
        sites: device -> its cost; the cloud is included.
        measured: whether to include time and memory, which a dry run does not measure.
    """
    figures = ["mult-adds/image", "in training", "sent", "received"]
    table = _table(["device"], figures + (["seconds", "peak memory"] if measured else []))
    edges = sorted((site for site in sites if site != CLOUD), key=lambda site: sites[site].train_macs)
    listed = [site for site in sites if site != CLOUD] if len(edges) <= MAX_LISTED else [edges[0], edges[-1]]
    for site in [*listed, CLOUD]:
        cost = sites[site]
        cells = [
            format_count(cost.macs_per_example),
            format_count(cost.train_macs),
            format_bytes(cost.bytes_sent),
            format_bytes(cost.bytes_received),
        ]
        if measured:
            cells += [f"{cost.seconds:.1f}", format_bytes(cost.peak_memory_bytes)]
        table.add_row(Text(site), *cells)
    selection = ""
    if len(edges) > MAX_LISTED:
        selection = f" (of {len(edges):,} edges, the ones with the least and the most training)"
    return _titled(f"Cost of each device{selection}", table)


def split_table(split: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Group:
    """Return the table of training images per class and edge.

    Few edges are columns, with a row for each class. Otherwise each edge is a row with its largest classes.
    """
    title = "Training images of each class on each edge"
    if len(split) <= 7 and len(classes) <= MAX_LISTED:
        table = _table(["class"], list(split))
        for k, name in enumerate(classes):
            table.add_row(Text(name), *(f"{counts[k]:,}" if counts[k] else "-" for counts in split.values()))
        table.add_row("all", *(f"{sum(counts):,}" for counts in split.values()), style="bold")
        return _titled(title, table)
    table = _table(["edge", "largest classes"], ["classes", "images"])
    for site, counts in split.items():
        present = sorted(((n, name) for n, name in zip(counts, classes, strict=True) if n), reverse=True)
        largest = ", ".join(f"{name} ({n:,})" for n, name in present[:4]) + (
            ", …" if len(present) > 4 else ""
        )
        table.add_row(Text(site), Text(largest), str(len(present)), f"{sum(counts):,}")
    return _titled(title, table)


def comparison_table(summaries: Sequence[Summary]) -> Group:
    """Return the table of accuracies and costs per method, and the table of saved computation."""
    figures = ("edges, mean", "worst edge", "cloud", "sent", "edges' work", "cloud's work")
    table = _table(["method"], figures)
    for summary in summaries:
        table.add_row(
            Text(summary.method),
            format_mean(summary.mean_edge),
            format_mean(summary.worst_edge),
            format_mean(summary.cloud),
            format_bytes(summary.bytes),
            format_count(summary.edge_macs),
            format_count(summary.cloud_macs),
        )
    seeds = summaries[0].seeds
    spread = f", mean ± standard deviation over {seeds} seeds" if seeds > 1 else ", one seed"
    return Group(
        _titled(f"Methods under one training budget{spread}", table),
        Text("edges: accuracy on the test images of each edge's own classes; cloud: on all classes"),
        Text("sent: bytes sent by all devices and the cloud; work: multiply-adds of all training"),
        Text(),
        _saved_table(summaries),
    )


def _saved_table(summaries: Sequence[Summary]) -> Group:
    table = _table(["method"], ["weakest", "strongest", "all edges", "edges and cloud"])
    for summary in summaries:
        each = sorted(summary.saved.values())
        table.add_row(
            Text(summary.method),
            *(
                "-" if value is None else f"{value:.1f}x"
                for value in (each[-1], each[0], summary.saved_sum, summary.saved_sum_with_cloud)
            ),
        )
    return Group(
        _titled("Work saved", table),
        Text("weakest, strongest device: multiply-adds per image of the whole model / of its sub-model"),
        Text("all edges (and cloud): multiply-adds to train the whole model on every edge / actual ones"),
    )


def plan_table(planned: Sequence[Planned]) -> Group:
    """Return the table of planned sub-models: width, cost, and the budget that limits the width."""
    figures = ("classes", "width", "mult-adds", "saved", "parameters", "memory", "s/epoch")
    table = _table(["device"], figures)
    table.add_column("limited by")
    for part in planned:
        needs = part.needs
        table.add_row(
            Text(part.site),
            str(part.classes),
            f"{part.width:.3f}",
            format_count(needs.macs),
            f"{part.saved:.1f}x",
            format_count(needs.parameters),
            format_bytes(needs.memory),
            f"{needs.seconds:.1f}" if needs.seconds else "-",
            part.limited_by or "full width",
        )
    return _titled("Widest sub-model within each device's budget", table)


def row_line(row: Row) -> str:
    """Return one measurement as a line of text."""
    return (
        f"{row.site:<12} {stage_label(row.stage):<18} accuracy {row.accuracy:.4f}"
        f"  all classes {row.accuracy_all:.4f}"
    )


def _listed_rows(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Yield (device cell, row) for each row, or for the worst, the median and the best of many."""
    if len(rows) <= MAX_LISTED:
        yield from ((row.site, row) for row in rows)
        return
    ordered = sorted(rows, key=lambda row: row.accuracy)
    yield f"worst of {len(rows):,}: {ordered[0].site}", ordered[0]
    yield f"median: {ordered[len(rows) // 2].site}", ordered[len(rows) // 2]
    yield f"best: {ordered[-1].site}", ordered[-1]


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    """Return an empty table with left-aligned and right-aligned columns of these headings."""
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in left:
        table.add_column(Text(heading))
    for heading in right:
        table.add_column(Text(heading), justify="right")
    return table


def _titled(title: str, table: Table) -> Group:
    return Group(Text(title, style="bold"), table, Text())
