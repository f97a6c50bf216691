"""The content of a report page, independent of HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with its texts.

    Attributes:
        name: the name of its files, without suffix.
        alt: the alternative text, which contains the figure's numbers.
        caption: how to read the figure.
        figure: the figure.
    """

    name: str
    alt: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        caption: the table's title.
        headings: the title of each column.
        rows: the cells; the first cell of a row is its title.
        text_columns: number of columns, from the left, that contain text; the others contain numbers.
        folded: whether the page shows the table only on demand.
        bold: (row, column) of the cells in bold type, such as the best of a column.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    folded: bool = False
    bold: Collection[tuple[int, int]] = ()


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        id: the target of links to the section.
        title: the heading.
        finding: the main result, in one sentence.
        pictures: the figures.
        tables: the tables, shown below the figures.
        notes: further remarks.
        facts: (topic, text) pairs below the finding.
    """

    id: str
    title: str
    finding: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: the heading.
        facts: (name, value) pairs below the heading.
        sections: the sections in order.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
