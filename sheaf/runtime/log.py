"""The log of a run: the measurements and training losses that a method records while it runs."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

import torch

from sheaf.core.task import Update
from sheaf.core.types import CLOUD
from sheaf.runtime.measured_logits import MeasuredLogits
from sheaf.runtime.result import EACH, Choice, Curve, Row
from sheaf.runtime.time_record import Spent
from sheaf.runtime.timeline import Timeline
from sheaf.training.metrics import Scores, scores

logger = logging.getLogger("sheaf")


class Log:
    """The log of a run: ``log("after update", fleet.evaluate())`` adds a row for each answer.

    Args:
        on_row: called with each new row.
        timeline: of the run.

    Attributes:
        rows: the measurements, in order.
        spent: what had been spent before each of them, if there is a timeline.
        curves: the training losses, in order.
        measured: site -> logits of the latest model that is no reference.
    """

    def __init__(self, on_row: Callable[[Row], None] | None = None, timeline: Timeline | None = None) -> None:
        self.rows: list[Row] = []
        self.spent: list[Spent] = []
        self._timeline = timeline
        self.curves: list[Curve] = []
        self.measured: dict[str, MeasuredLogits] = {}
        self._on_row = on_row
        self._measured = 0  # curves before the latest measurement

    def add(self, row: Row) -> None:
        """Add a row that is not an answer of this run's sites."""
        self.rows.append(row)
        on_all = "not measured" if row.accuracy_all is None else f"{row.accuracy_all:.4f}"
        logger.info("%s %s: %.4f, on all classes %s", row.site, row.stage, row.accuracy, on_all)
        if self._on_row is not None:
            self._on_row(row)

    def __call__(
        self,
        stage: str,
        evaluated: Iterable[Update],
        round: int = 1,
        reference: bool = False,
        chosen: Iterable[Iterable[Update]] = (),
    ) -> None:
        """Add a row for each site's evaluation, and name the curves since the last one by this stage.

        Args:
            stage: name of the stage.
            evaluated: answers to an ``evaluate`` call.
            round: number of the round, from 1.
            reference: the measured models are references, not the method's own.
            chosen: answers to each ``choose`` call that led to the measured models.
        """
        choices: dict[str, tuple[Choice, ...]] = {}
        for answers in chosen:
            for update in answers:
                choices[update.site] = (*choices.get(update.site, ()), Choice.of(update))
        scored: _Scored | None = None
        for update in evaluated:
            own = None if update.site == CLOUD else tuple(count > 0 for count in update.counts)
            if scored is None or (scored.confusion, scored.own) != (update.metrics["confusion"], own):
                scored = _Scored.of(update.metrics["confusion"], own)  # edges that hold one model share it
            row = Row(
                site=update.site,
                stage=stage,
                round=round,
                reference=reference,
                **vars(scored.on_own),
                accuracy_all=scored.accuracy_all,
                held_out=update.metrics.get("held_out"),
                loss=update.metrics["loss"] if math.isfinite(update.metrics["loss"]) else None,
                confusion=update.metrics["confusion"],
                choices=choices.get(update.site, ()),
            )
            if self._timeline is not None:
                self.spent.append(self._timeline.spent_before(update.times))
            self.add(row)
            if not reference and "measured" in update.metrics:
                self.measured[update.site] = MeasuredLogits(**update.metrics["measured"])
        self.curves[self._measured :] = [
            replace(curve, stage=stage, round=round, reference=reference)
            for curve in self.curves[self._measured :]
        ]
        self._measured = len(self.curves)

    def trained(self, call: int, updates: Sequence[Update]) -> None:
        """Add the curve of a call that trained. The next measurement names its stage."""
        losses = {update.site: [_short(loss) for loss in update.metrics["losses"]] for update in updates}
        few = len(losses) <= EACH
        self.curves.append(
            Curve(
                call=call,
                stage="",
                round=0,
                reference=False,
                sites=len(losses),
                losses=losses if few else {},
                spread=[] if few else [_spread(epoch) for epoch in zip_longest(*losses.values())],
            )
        )


class _Scored(NamedTuple):
    """The scores of a confusion matrix.

    Attributes:
        confusion: (K, K) counts.
        own: (K,) the classes that the site has examples of; None: all.
        on_own: on these classes.
        accuracy_all: on all classes; None: not measured.
    """

    confusion: list[list[int]]
    own: tuple[bool, ...] | None
    on_own: Scores
    accuracy_all: float | None

    @classmethod
    def of(cls, confusion: list[list[int]], own: tuple[bool, ...] | None) -> _Scored:
        """Compute the scores."""
        matrix, mask = torch.tensor(confusion), None if own is None else torch.tensor(own)
        foreign = None if mask is None else matrix[~mask]
        measured_all = foreign is None or not len(foreign) or bool(foreign.any())
        on_all = scores(matrix).accuracy if measured_all else None
        return cls(confusion, own, scores(matrix, mask), on_all)


def _short(loss: float) -> float | None:
    return float(f"{loss:.4g}") if math.isfinite(loss) else None


def _spread(epoch: Iterable[float | None]) -> tuple[float | None, float | None, float | None]:
    finite = [loss for loss in epoch if loss is not None]
    return (min(finite), statistics.median(finite), max(finite)) if finite else (None, None, None)
