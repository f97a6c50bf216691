"""The guard: models of other classes, widths and inputs are compared by class name, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from sheaf.core.dataset import Samples
from sheaf.core.errors import ModelFileError
from sheaf.export.model_file import LoadedModel
from sheaf.fleets.remote.guard import Comparison, compare
from sheaf.models.card import Card

CARD = Card(classes=("a", "b", "c"), in_shape=(1, 1, 1), mean=(0.0,), std=(1.0,), inputs="image")
HELD_OUT = Samples.of(torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(40) % 2)
"""40 samples of the classes a and b; a sample's only pixel is its number."""


def model(wrong: int, card: Card = CARD) -> LoadedModel:
    """A model that takes the first ``wrong`` samples for the other one of the classes a and b."""

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        number = inputs.flatten().long()
        names = [("a", "b")[(n % 2) ^ (n < wrong)] for n in number.tolist()]
        known = [card.outputs.index(name) if name in card.outputs else 0 for name in names]
        return torch.nn.functional.one_hot(torch.tensor(known), len(card.outputs)).float()

    return LoadedModel(card, logits)


def compared(
    new: LoadedModel,
    current: Any,
    tolerance: float | Literal["off"] = 0.02,
    fair: Samples = HELD_OUT,
    held_out: Samples = HELD_OUT,
) -> Comparison:
    return compare(new, current, held_out, fair, ("a", "b", "c"), tolerance)


@pytest.mark.parametrize(
    ("wrong", "tolerance", "replaces"),
    [(0, 0.02, True), (4, 0.02, True), (5, 0.02, True), (6, 0.02, False), (6, 0.05, True), (40, "off", True)],
)
def test_the_tolerance(wrong: int, tolerance: float | Literal["off"], replaces: bool) -> None:
    """4 of 40 errors before; one sample, here 2.5 %, is always tolerated."""
    result = compared(model(wrong), model(4), tolerance)
    assert (result.replaces, result.before, result.samples) == (replaces, pytest.approx(0.9), 40)
    assert result.held_out == pytest.approx(1 - wrong / 40)
    assert bool(result.why) != replaces


def test_classes_are_compared_by_name() -> None:
    reordered = model(2, replace(CARD, classes=("c", "b", "a")))
    assert compared(reordered, model(2)).held_out == pytest.approx(0.95)
    lacks_b = model(0, replace(CARD, classes=("a",)))
    assert compared(model(2), lacks_b).before == pytest.approx(0.5), "the missing class counts as an error"
    assert not compared(lacks_b, model(2)).replaces


@pytest.mark.parametrize(
    ("current", "held_out", "fair", "why"),
    [
        (None, HELD_OUT, HELD_OUT, ""),
        (model(0), HELD_OUT.select(torch.arange(0)), HELD_OUT, "the device has no held-out samples"),
        (model(0), HELD_OUT, HELD_OUT.select(torch.arange(0)), "was trained on all samples"),
        (model(0, replace(CARD, in_shape=(1, 8, 8))), HELD_OUT, HELD_OUT, "inputs of 1x8x8 (image), the new"),
        (ModelFileError("it is damaged"), HELD_OUT, HELD_OUT, "cannot be used: it is damaged"),
    ],
)
def test_models_that_cannot_be_compared_are_replaced_and_the_reason_is_given(
    current: Any, held_out: Samples, fair: Samples, why: str
) -> None:
    result = compared(model(40), current, fair=fair, held_out=held_out)
    assert result.replaces
    assert result.before is None
    assert why in result.why
    assert result.why.startswith("not compared: ") == bool(why)
