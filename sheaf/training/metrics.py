"""Accuracy, precision, recall and F1 from a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Scores over some examples, each in 0..1.

    Attributes:
        accuracy: fraction of the examples that are classified correctly.
        precision, recall, f1: means over the classes weighted by their examples, so recall equals accuracy.
        macro_f1: the plain mean over the classes that have examples.
        examples: number of examples.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    examples: int


def scores(confusion: Tensor, own: Tensor | None = None) -> Scores:
    """Return the scores on the examples of the classes ``own`` (all by default).

    Args:
        confusion: (K, K) counts; rows are the true classes, columns the predicted ones.
        own: (K,) bool. Examples of other classes do not count; predicting another class is still an error.

    Raises:
        ValueError: there is no example.
    """
    counts = confusion.double()
    if own is not None:
        counts = counts * own[:, None]
    support, predicted, hits = counts.sum(1), counts.sum(0), counts.diagonal()
    examples = support.sum()
    if examples == 0:
        raise ValueError("no example of these classes to score")
    precision = hits / predicted.clamp(min=1)
    recall = hits / support.clamp(min=1)
    f1 = 2 * hits / (predicted + support).clamp(min=1)
    weight = support / examples
    return Scores(
        accuracy=float(hits.sum() / examples),
        precision=float(weight @ precision),
        recall=float(weight @ recall),
        f1=float(weight @ f1),
        macro_f1=float(f1[support > 0].mean()),
        examples=int(examples),
    )


def confusion_matrix(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return (K, K) int64 counts from two (N,) tensors of class indices; rows are the true classes."""
    return torch.bincount(truth * num_classes + predicted, minlength=num_classes**2).view(
        num_classes, num_classes
    )
