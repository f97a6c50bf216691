"""A run's figures as tables for the terminal; none is wider than 100 columns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sheaf.core.types import CLOUD
from sheaf.experiments.compare import Summary
from sheaf.experiments.plan import Planned
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Result, Row, SiteRecord

MANY = 20
"""With more edges than this, a table shows their mean and the ends instead of each."""


def accuracy_table(result: Result) -> Group:
    """The table of the paper: device, setup, accuracy, precision, recall, F1; and accuracy on all classes."""
    figures = ("accuracy", "precision", "recall", "F1", "all classes", "images")
    table = _table(["device", "setup"], figures)
    several = max((row.round for row in result.rows), default=1) > 1
    for (stage, number), rows in groupby(result.rows, lambda row: (row.stage, row.round)):
        for device, row in _shown(list(rows)):
            scores = (row.accuracy, row.precision, row.recall, row.f1, row.accuracy_all)
            table.add_row(
                device,
                f"{stage} ({number})" if several else stage,
                *(f"{score:.4f}" for score in scores),
                f"{row.examples:,}",
            )
    return _titled("How good each model was, on the test images of its own classes", table)


def cost_table(sites: Mapping[str, SiteCost | SiteRecord], measured: bool = True) -> Group:
    """What each site spent; ``measured`` columns are left out where nothing ran."""
    figures = ["multiply-adds/image", "in training", "sent", "received"]
    table = _table(["device"], figures + (["seconds", "peak memory"] if measured else []))
    edges = sorted((site for site in sites if site != CLOUD), key=lambda site: sites[site].train_macs)
    shown = [site for site in sites if site != CLOUD] if len(edges) <= MANY else [edges[0], edges[-1]]
    for site in [*shown, CLOUD]:
        cost = sites[site]
        cells = [
            count(cost.macs_per_example),
            count(cost.train_macs),
            size(cost.bytes_sent),
            size(cost.bytes_received),
        ]
        if measured:
            cells += [f"{cost.seconds:.1f}", size(cost.peak_memory_bytes)]
        table.add_row(site, *cells)
    which = "" if len(edges) <= MANY else f" (of {len(edges)} edges, those that trained least and most)"
    return _titled(f"What each device spent{which}", table)


def split_table(split: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Group:
    """Training images of each class on each edge: classes as rows where all fit, else edges as rows."""
    title = "Training images of each class on each edge"
    if len(split) <= 7 and len(classes) <= MANY:
        table = _table(["class"], list(split))
        for k, name in enumerate(classes):
            table.add_row(name, *(f"{counts[k]:,}" if counts[k] else "-" for counts in split.values()))
        table.add_row("all", *(f"{sum(counts):,}" for counts in split.values()), style="bold")
        return _titled(title, table)
    table = _table(["edge", "most of"], ["classes", "images"])
    for site, counts in split.items():
        held = sorted(((n, name) for n, name in zip(counts, classes, strict=True) if n), reverse=True)
        most = ", ".join(f"{name} ({n:,})" for n, name in held[:4]) + (", …" if len(held) > 4 else "")
        table.add_row(site, most, str(len(held)), f"{sum(counts):,}")
    return _titled(title, table)


def comparison_table(summaries: Sequence[Summary]) -> Group:
    """Methods side by side: what the edges and the cloud ended with, and what it cost."""
    figures = ("edges, mean", "worst edge", "cloud", "sent", "edges' work", "cloud's work")
    table = _table(["method"], figures)
    for summary in summaries:
        table.add_row(
            summary.method,
            spread(summary.mean_edge),
            spread(summary.worst_edge),
            spread(summary.cloud),
            size(summary.bytes),
            count(summary.edge_macs),
            count(summary.cloud_macs),
        )
    seeds = summaries[0].seeds
    return Group(
        _titled(f"Methods under one budget, {seeds} seed{'s' * (seeds > 1)}", table),
        Text("edges: accuracy on the test images of their own classes; cloud: on all classes"),
        Text("work: multiply-adds of all training; sent: by all devices and the cloud"),
        Text(),
        _saved_table(summaries),
    )


def _saved_table(summaries: Sequence[Summary]) -> Group:
    table = _table(["method"], ["weakest", "strongest", "sum", "sum with cloud"])
    for summary in summaries:
        each = sorted(summary.saved.values())
        table.add_row(
            summary.method,
            *(
                "-" if value is None else f"{value:.1f}x"
                for value in (each[-1], each[0], summary.saved_sum, summary.saved_sum_with_cloud)
            ),
        )
    return Group(
        _titled("Work saved", table),
        Text("device: multiply-adds an image of the whole model over those of its own part"),
        Text("sum: training the whole model on every device as long, over what devices (and cloud) did"),
    )


def plan_table(planned: Sequence[Planned]) -> Group:
    """Each device's part: how wide, what it takes, and which budget keeps it from being wider."""
    figures = ("classes", "width", "mult-adds", "saved", "parameters", "memory", "s/epoch")
    table = _table(["device"], figures)
    table.add_column("limit")
    for part in planned:
        needs = part.needs
        table.add_row(
            part.site,
            str(part.classes),
            f"{part.width:.3f}",
            count(needs.macs),
            f"{part.saved:.1f}x",
            count(needs.parameters),
            size(needs.memory),
            f"{needs.seconds:.1f}" if needs.seconds else "-",
            part.limited_by or "the width",
        )
    return _titled("What each device can carry", table)


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


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds; the value alone where there is one."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "-"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def _shown(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """(what the first column says, row) for each row, or for the ends where there are many."""
    if len(rows) <= MANY:
        yield from ((row.site, row) for row in rows)
        return
    ordered = sorted(rows, key=lambda row: row.accuracy)
    yield f"worst of {len(rows)}: {ordered[0].site}", ordered[0]
    yield f"median: {ordered[len(rows) // 2].site}", ordered[len(rows) // 2]
    yield f"best: {ordered[-1].site}", ordered[-1]


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def _titled(title: str, table: Table) -> Group:
    return Group(Text(title, style="bold"), table)
