"""What a page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with its words.

    Attributes:
        name: of its files, without the suffix.
        alt: what it shows, for who cannot see it.
        reading: how it is to be read.
    """

    name: str
    alt: str
    reading: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each is the row's name.

    Attributes:
        words: how many of the columns, from the left, hold words; the others hold numbers.
        folded: whether it is shown only when asked for.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        id: what links lead to.
        title: what it is about.
        finding: what was found, in a sentence.
        notes: what else is to be known.
    """

    id: str
    title: str
    finding: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """A whole report; ``facts`` is (what, value), shown at its head."""

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
