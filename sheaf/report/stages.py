"""Readable labels for the stages of a method, as tables, pictures and pages show them."""

from __future__ import annotations

LABELS = {
    "alone": "local training",
    "apart": "trained separately",
    "bound": "bound model",
}
"""Stage as stored in ``result.json`` -> label. Other stages are their own labels."""


def stage_label(stage: str, reference: bool = False) -> str:
    """Return the label of a stage, with a mark if it is a reference."""
    return LABELS.get(stage, stage) + " (reference)" * reference
