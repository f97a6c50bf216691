"""Readable labels for the stages of a method, as tables, pictures and pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sheaf.runtime.result import Row  # imports torch, which the page of a fleet does not

LABELS = {
    "alone": "local training",
    "apart": "trained separately",
    "bound": "bound model",
}
"""Stage as stored in ``result.json`` -> label. Other stages are their own labels."""


def stage_label(stage: str, reference: bool = False) -> str:
    """Return the label of a stage, with a mark if it is a reference."""
    return LABELS.get(stage, stage) + " (reference)" * reference


class Repetition:
    """Recognises measurements that repeat earlier ones of the same models.

    ``before update (2)`` measures the same models as ``after retraining (1)``.
    """

    def __init__(self) -> None:
        self._first = ""
        self._latest: dict[str, list[list[int]]] = {}

    def __call__(self, rows: Sequence[Row]) -> bool:
        """Return whether ``rows``, one stage of one round, repeat the latest rows. Call it once for each."""
        stage, number = rows[0].stage, rows[0].round
        self._first = self._first or stage
        same = all(self._latest.get(row.site) == row.confusion for row in rows)
        self._latest |= {row.site: row.confusion for row in rows if not row.reference}
        return same and stage == self._first and number > 1
