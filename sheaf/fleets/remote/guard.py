"""The guard of a device: compare a new model with the current one on the device's held-out samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sheaf.core.dataset import Samples
from sheaf.core.errors import SheafError
from sheaf.export.model_file import LoadedModel

BATCH = 64
"""Samples of one forward pass."""

ROUNDING = 1e-9
"""Two accuracies that differ by at most this are equal."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        replaces: whether the new model may replace the current one.
        held_out: accuracy of the new model, the mean over the classes; None without held-out samples.
        before: accuracy of the current model on the same samples; None: not compared.
        samples: number of these samples.
        why: why the new model may not replace the current one, or was not compared; empty otherwise.
    """

    replaces: bool
    held_out: float | None
    before: float | None
    samples: int
    why: str


def compare(
    new: LoadedModel,
    current: LoadedModel | SheafError | None,
    held_out: Samples,
    fair: Samples,
    classes: tuple[str, ...],
    tolerance: float | Literal["off"],
) -> Comparison:
    """Compare a new model with the current one.

    Both predict the same samples, by class name. So the models may have other architectures, widths, and
    classes; a class that a model lacks counts as its error. A model for inputs of another form cannot be
    compared, and is replaced: only the new one fits the samples that the device now has.

    Args:
        new: the new model.
        current: the current model, or the error if it cannot be read, or None before the first.
        held_out: the device's held-out samples; labels are indices into ``classes``.
        fair: those of them on which neither model was trained.
        classes: the class names.
        tolerance: the loss of accuracy up to which the new model replaces the current one. The loss of one
            sample is always tolerated. ``off``: it always does.
    """
    accuracy = balanced_accuracy(new, held_out, classes) if len(held_out) else None
    if current is None:
        return Comparison(True, accuracy, None, len(held_out), "")
    if why := _incomparable(new, current, held_out, fair):
        return Comparison(True, accuracy, None, len(held_out), f"not compared: {why}")
    assert isinstance(current, LoadedModel)
    accuracy, before = (balanced_accuracy(model, fair, classes) for model in (new, current))
    counts = fair.counts(len(classes))
    present = counts[counts > 0]
    one_sample = 1 / (len(present) * int(present.min()))
    if tolerance == "off" or accuracy >= before - max(tolerance, one_sample) - ROUNDING:
        return Comparison(True, accuracy, before, len(fair), "")
    why = (
        f"held-out accuracy {accuracy:.4f}, but {before:.4f} of the current model on the same {len(fair)} "
        f"samples: more than [edge] guard = {tolerance:g} below"
    )
    return Comparison(False, accuracy, before, len(fair), why)


def _incomparable(
    new: LoadedModel, current: LoadedModel | SheafError, held_out: Samples, fair: Samples
) -> str:
    """Return why two models cannot be compared; empty if they can."""
    if isinstance(current, SheafError):
        return f"the current model cannot be used: {current}"
    if not len(held_out):
        return "the device has no held-out samples"
    if not len(fair):
        return "the current model was trained on all samples that are held out now"
    if (current.card.in_shape, current.card.dtype) != (new.card.in_shape, new.card.dtype):
        return f"the current model is for inputs of {_form(current)}, the new one for {_form(new)}"
    return ""


def _form(model: LoadedModel) -> str:
    return f"{'x'.join(map(str, model.card.in_shape))} ({model.card.inputs})"


def balanced_accuracy(model: LoadedModel, samples: Samples, classes: tuple[str, ...]) -> float:
    """Return the mean over the classes of a model's accuracies; classes without samples are left out.

    Args:
        model: its outputs are mapped to ``classes`` by name.
        samples: at least one.
        classes: the class names of the labels.
    """
    index = {name: label for label, name in enumerate(classes)}
    outputs = torch.tensor([index.get(name, -1) for name in model.card.outputs])
    predicted = [
        outputs[model.logits(samples.inputs[positions]).argmax(1)]
        for positions in torch.split(samples.positions, BATCH)
    ]
    correct = (torch.cat(predicted) == samples.labels).double()
    counts = samples.counts(len(classes))
    present = counts > 0
    right = torch.bincount(samples.labels, correct, minlength=len(classes))
    return float((right[present] / counts[present]).mean())
