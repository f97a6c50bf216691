"""How good a model is, read from its confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Scores over some examples; all lie in 0..1.

    ``precision``, ``recall`` and ``f1`` are means over the classes weighted by their examples (so
    recall equals accuracy), ``macro_f1`` is the plain mean over the classes that have examples.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    examples: int


def scores(confusion: Tensor, own: Tensor | None = None) -> Scores:
    """Scores on the examples of the classes ``own`` (all by default).

    Args:
        confusion: (K, K) counts; rows are the true classes, columns the predicted ones.
        own: (K,) bool. Examples of other classes are left out; predicting another class is still wrong.

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
    share = support / examples
    return Scores(
        accuracy=float(hits.sum() / examples),
        precision=float(share @ precision),
        recall=float(share @ recall),
        f1=float(share @ f1),
        macro_f1=float(f1[support > 0].mean()),
        examples=int(examples),
    )


def confusion_matrix(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64 counts from two (N,) tensors of class indices; rows are the true classes."""
    return torch.bincount(truth * num_classes + predicted, minlength=num_classes**2).view(
        num_classes, num_classes
    )
