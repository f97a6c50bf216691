"""Tables that leave out their least important columns on a narrow terminal instead of cutting numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDEST = 1000
"""Columns of the imaginary terminal on which a table's natural width is measured."""


SUMMARIZED = 5
"""From this number of edges on, a table has their mean, worst, best and spread instead of each edge."""


@dataclass(frozen=True)
class Column:
    """A column of a fitted table.

    Attributes:
        heading: its heading; a line break is kept.
        rank: its importance, 0 is highest and never left out; the highest rank is left out first.
        right: right-aligned, for numbers, which are never broken; a column of text may be wrapped.
    """

    heading: str
    rank: int = 0
    right: bool = True


class FittedTable:
    """A table with as many columns as fit. A line below names the columns that are left out.

    Args:
        columns: the columns, in order.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._rows: list[tuple[Sequence[str], str]] = []

    def add_row(self, *cells: str, style: str = "") -> None:
        """Add a row with a cell for each column."""
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells for {len(self._columns)} columns")
        self._rows.append((cells, style))

    def fits(self, console: Console, options: ConsoleOptions) -> bool:
        """Return whether the table fits with all its columns."""
        return _width(console, options, self._build(range(len(self._columns)))) <= options.max_width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = list(range(len(self._columns)))
        table = full = self._build(shown)
        while (
            _width(console, options, table) > options.max_width and (last := self._least(shown)) is not None
        ):
            shown.remove(last)
            table = self._build(shown)
        yield table
        hidden = [self._columns[n].heading for n in range(len(self._columns)) if n not in shown]
        if hidden:
            names, width = (
                ", ".join(" ".join(name.split()) for name in hidden),
                _width(console, options, full),
            )
            yield Text(f"not shown below {width} columns: {names}", style="dim")

    def _least(self, shown: Sequence[int]) -> int | None:
        """Return the shown column to leave out next: the highest rank, the last of equal ones."""
        ranks = [(self._columns[n].rank, n) for n in shown if self._columns[n].rank]
        return max(ranks)[1] if ranks else None

    def _build(self, shown: Sequence[int]) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
        )
        for column in (self._columns[n] for n in shown):
            justify: Literal["left", "right"] = "right" if column.right else "left"
            table.add_column(Text(column.heading), justify=justify, no_wrap=column.right)
        for cells, style in self._rows:
            table.add_row(*(Text(cells[n]) for n in shown), style=style)
        return table


class FirstThatFits:
    """The first of several tables that fits with all its columns, or else the last.

    Args:
        tables: the tables, the best one first.
    """

    def __init__(self, *tables: FittedTable) -> None:
        self._tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield next((table for table in self._tables if table.fits(console, options)), self._tables[-1])


def _width(console: Console, options: ConsoleOptions, table: Table) -> int:
    """Return the width of a table in which no cell is wrapped."""
    return Measurement.get(console, options.update(max_width=WIDEST), table).maximum


def titled(title: str, table: RenderableType, *notes: str) -> Group:
    """Return a table below its title and above notes."""
    return Group(Text(title, style="bold"), table, *(Text(note, style="dim") for note in notes), Text())
