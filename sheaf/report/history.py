"""The measurements of each edge and of the cloud, in order, from a result's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sheaf.core.types import CLOUD
from sheaf.runtime.result import Result, Row


@dataclass(frozen=True)
class EdgeHistory:
    """The measurements of one edge.

    Attributes:
        site: the edge's name.
        rows: its first measurement, then the last measurement of each later stage.
        baseline: the measurement after local training for as long; None if the run has none.
    """

    site: str
    rows: Sequence[Row]
    baseline: Row | None = None

    @property
    def measured(self) -> list[Row]:
        """The baseline, if there is one, and the rows."""
        return [*([] if self.baseline is None else [self.baseline]), *self.rows]

    @property
    def before(self) -> Row:
        """The measurement that gains are relative to: the baseline, or else the first row."""
        return self.measured[0]

    @property
    def last(self) -> Row:
        """The last measurement."""
        return self.rows[-1]

    @property
    def gain(self) -> float:
        """Last accuracy on the edge's own classes minus that before, -1 to 1."""
        return self.last.accuracy - self.before.accuracy

    @property
    def gain_all(self) -> float | None:
        """Last accuracy on all classes minus that before, -1 to 1; None if the edge did not measure it."""
        return gain_on_all(self.before, self.last)


def gain_on_all(before: Row, after: Row) -> float | None:
    """Return the difference of two accuracies on all classes; None if one was not measured."""
    if before.accuracy_all is None or after.accuracy_all is None:
        return None
    return after.accuracy_all - before.accuracy_all


def edge_histories(result: Result) -> list[EdgeHistory]:
    """Return the history of each measured edge, in the order of the split."""
    rows: dict[str, dict[str, Row]] = {site: {} for site in result.split}
    baselines: dict[str, Row] = {}
    for row in result.rows:
        if row.reference and row.stage == "alone":
            baselines[row.site] = row
        elif row.site in rows and not row.reference:
            by_stage = rows[row.site]
            if row.stage not in by_stage or row.stage != next(iter(by_stage)):
                by_stage[row.stage] = row
    return [
        EdgeHistory(site, list(by_stage.values()), baselines.get(site))
        for site, by_stage in rows.items()
        if by_stage
    ]


def cloud_rows(result: Result) -> list[Row]:
    """Return the cloud's measurements in order, references included."""
    return [row for row in result.rows if row.site == CLOUD]


def class_groups(result: Result) -> list[list[int]]:
    """Group the classes by the set of edges that have training images of them, ordered by first class."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for k in range(len(result.classes)):
        holders = tuple(site for site, counts in result.split.items() if counts[k])
        groups.setdefault(holders, []).append(k)
    return list(groups.values())
