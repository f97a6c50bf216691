"""Between two models of one shape: their mixtures, and which of these to hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sheaf.core.types import Params


def mixture(own: Params, received: Params, a: float) -> dict[str, Tensor]:
    """(1 - a) own + a received for floating tensors; integer buffers are those of ``received``.

    The ends are exact: a = 0 gives ``own`` and a = 1 ``received``, bit for bit.
    """
    if a == 0:
        return dict(own)
    return {
        name: torch.lerp(own[name], value, a) if value.is_floating_point() and a != 1 else value
        for name, value in received.items()
    }


def choose_mixture(
    accuracies: Mapping[float, float], losses: Mapping[float, Tensor], labels: Tensor, baseline: float
) -> float:
    """The a to hold, by what its mixture does on N held-out examples; the least where none is good enough.

    Of the others whose accuracy is at least ``baseline`` it is the one nearest to half-way whose
    cross-entropy is within one standard error of the least; of two as near the larger. Half-way is what
    Wortsman et al. (CVPR 2022, arXiv:2109.01903) advise where nothing is known; the margin is the
    one-standard-error rule (Breiman, Friedman, Olshen, Stone: Classification and Regression Trees, 1984,
    section 3.4.3). Every class counts the same: an edge has few examples of some, and a model that gives
    these up would look good in a plain mean. The least, what was held before, is no rival by its
    cross-entropy: what training made surer, of its few errors too, would lose to what is right less often.

    Args:
        accuracies, losses: a -> what ``training.judge`` finds of its mixture.
        labels: (N,) classes.
    """
    least = min(accuracies)
    safe = [a for a in accuracies if a > least and accuracies[a] >= baseline - ROUNDING]
    if not safe:
        return least
    counts = labels.bincount().double()
    weight = counts.reciprocal()[labels] / (counts > 0).sum()
    best = min(safe, key=lambda a: (weight @ losses[a]).item())
    as_good = [a for a in safe if _no_worse(losses[a] - losses[best], weight)]
    return min(as_good, key=lambda a: (round(abs(a - 0.5), 6), -a))  # 0.8 - 0.5 is more than 0.5 - 0.2


def _no_worse(excess: Tensor, weight: Tensor) -> bool:
    """Whether the mean of (N,) paired differences, weighted, is within its standard error of 0."""
    mean, spread = weight @ excess, weight**2
    return bool(mean**2 * (1 - spread.sum()) <= spread @ (excess - mean) ** 2)


ROUNDING = 1e-9
"""Means over classes that differ by no more are the same."""
