"""What became of each edge, read from a result's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sheaf.core.types import CLOUD
from sheaf.runtime.result import Result, Row


@dataclass(frozen=True)
class Way:
    """One edge's way through a method: its first measurement, and the last one of each later stage."""

    site: str
    rows: Sequence[Row]

    @property
    def first(self) -> Row:
        """Where it began."""
        return self.rows[0]

    @property
    def last(self) -> Row:
        """What it ended with."""
        return self.rows[-1]

    @property
    def gain(self) -> float:
        """In accuracy on its own classes, -1 to 1."""
        return self.last.accuracy - self.first.accuracy

    @property
    def gain_all(self) -> float:
        """In accuracy on all classes, -1 to 1."""
        return self.last.accuracy_all - self.first.accuracy_all


def ways(result: Result) -> list[Way]:
    """Each edge's way, in the order of the split; an edge that was never measured has none."""
    rows: dict[str, dict[str, Row]] = {site: {} for site in result.split}
    for row in result.rows:
        if row.site in rows and not row.reference:
            seen = rows[row.site]
            if row.stage not in seen or row.stage != next(iter(seen)):
                seen[row.stage] = row
    return [Way(site, list(seen.values())) for site, seen in rows.items() if seen]


def cloud_rows(result: Result) -> list[Row]:
    """The cloud's model at each step, and what it is compared with, in order."""
    return [row for row in result.rows if row.site == CLOUD]


def groups_of_classes(result: Result) -> list[list[int]]:
    """The classes that the same edges hold, together; by first class."""
    held: dict[tuple[str, ...], list[int]] = {}
    for k in range(len(result.classes)):
        holders = tuple(site for site, counts in result.split.items() if counts[k])
        held.setdefault(holders, []).append(k)
    return list(held.values())
