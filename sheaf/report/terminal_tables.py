"""Tables of a run for the terminal, and the verdict above them. None is wider than the console."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sheaf.core.types import CLOUD
from sheaf.report.fitted_table import SUMMARIZED, Column, FirstThatFits, FittedTable, titled
from sheaf.report.formatting import (
    MAX_LISTED,
    format_number_of,
)
from sheaf.report.stages import Repetition, stage_label
from sheaf.report.verdict import verdict
from sheaf.runtime.result import Result, Row

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
    return titled(title, table, *notes)


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
        return titled(title, rows, *notes)
    table = FittedTable([Column("class", right=False), *(Column(site) for site in split)])
    for k, name in enumerate(classes):
        table.add_row(name, *(f"{counts[k]:,}" if counts[k] else "-" for counts in split.values()))
    table.add_row("all", *(f"{sum(counts):,}" for counts in split.values()), style="bold")
    return titled(title, FirstThatFits(table, rows), *notes)


def row_line(row: Row) -> str:
    """Return one measurement as a line of text."""
    on_all = "" if row.accuracy_all is None else f"  all classes {row.accuracy_all:.4f}"
    return f"{row.site:<12} {stage_label(row.stage):<18} accuracy {row.accuracy:.4f}{on_all}"
