"""A run's figures as tables for the terminal; none is wider than 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from sheaf.compare import Summary
from sheaf.ledger import SiteCost
from sheaf.record import Result, Row, SiteRecord

MANY = 20
"""More rows than this and a table shows only the ends of what it orders."""


def accuracy_table(result: Result) -> Table:
    """The table of the paper: device, setup, accuracy, precision, recall, F1; and accuracy on all classes."""
    table = _table("How good each model was, on the test images of its own classes")
    for heading in ("device", "setup"):
        table.add_column(heading)
    for heading in ("accuracy", "precision", "recall", "F1", "all classes", "images"):
        table.add_column(heading, justify="right")
    several = max((row.round for row in result.rows), default=1) > 1
    for place, row in enumerate(result.rows):
        last_of_stage = place + 1 == len(result.rows) or result.rows[place + 1].stage != row.stage
        table.add_row(
            row.site,
            f"{row.stage} ({row.round})" if several else row.stage,
            *(
                f"{value:.4f}"
                for value in (row.accuracy, row.precision, row.recall, row.f1, row.accuracy_all)
            ),
            f"{row.examples:,}",
            end_section=last_of_stage,
        )
    return table


def cost_table(sites: Mapping[str, SiteCost | SiteRecord], measured: bool = True) -> Table:
    """What each site spent; ``measured`` columns are left out where nothing ran."""
    table = _table("What each device spent")
    table.add_column("device")
    headings = ["multiply-adds/image", "in training", "sent", "received"]
    for heading in headings + (["seconds", "peak memory"] if measured else []):
        table.add_column(heading, justify="right")
    for site, cost in sites.items():
        cells = [
            count(cost.macs_per_example),
            count(cost.train_macs),
            size(cost.bytes_sent),
            size(cost.bytes_received),
        ]
        if measured:
            cells += [f"{cost.seconds:.1f}", size(cost.peak_memory_bytes)]
        table.add_row(site, *cells)
    return table


def split_table(split: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Table:
    """Training images of each class on each edge; classes as rows where there are few edges, else totals."""
    table = _table("Training images of each class on each edge")
    if len(split) <= 7 and len(classes) <= MANY:
        table.add_column("class")
        for site in split:
            table.add_column(site, justify="right")
        for k, name in enumerate(classes):
            table.add_row(name, *(f"{counts[k]:,}" if counts[k] else "-" for counts in split.values()))
        table.add_section()
        table.add_row("all", *(f"{sum(counts):,}" for counts in split.values()))
        return table
    table.add_column("edge")
    table.add_column("images", justify="right")
    table.add_column("classes", justify="right")
    table.add_column("which (images)", max_width=60)
    for site, counts in split.items():
        held = sorted(((n, name) for n, name in zip(counts, classes, strict=True) if n), reverse=True)
        most = ", ".join(f"{name} ({n:,})" for n, name in held[:4]) + (", …" if len(held) > 4 else "")
        table.add_row(site, f"{sum(counts):,}", str(len(held)), most)
    return table


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Methods side by side: what the edges and the cloud ended with, and what it cost."""
    seeds = max(summary.seeds for summary in summaries)
    table = _table(
        f"Methods under one budget: mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}"
    )
    table.add_column("method")
    for heading in (
        "edges, mean",
        "worst edge",
        "cloud, all",
        "sent",
        "edge mult-adds",
        "cloud mult-adds",
    ):
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(
            summary.method,
            _spread(summary.mean_edge),
            _spread(summary.worst_edge),
            _spread(summary.cloud),
            size(summary.bytes),
            count(summary.edge_macs),
            count(summary.cloud_macs),
        )
    return table


def row_line(row: Row) -> str:
    """One row as a plain line."""
    return f"{row.site:<12} {row.stage:<18} accuracy {row.accuracy:.4f}  all classes {row.accuracy_all:.4f}"


def count(number: float) -> str:
    """A large number, short: 313.7M."""
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes, short, in powers of 1000: 1.2 MB."""
    short = count(number)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} B"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.4f}"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.4f} ± {deviation:.4f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", header_style="bold")
