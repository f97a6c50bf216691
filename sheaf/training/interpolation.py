"""Interpolate between two models of one shape, and choose among the mixtures by held-out examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sheaf.core.types import Params


def mixture(own: Params, received: Params, a: float) -> dict[str, Tensor]:
    """Return (1 - a) own + a received for floating tensors; integer buffers are those of ``received``.

    The ends are exact: a = 0 gives ``own`` and a = 1 ``received``, bit for bit.
    """
    if a == 0:
        return dict(own)
    if a == 1:
        return dict(received)
    return {
        name: _between(own[name], value, a) if value.is_floating_point() else value
        for name, value in received.items()
    }


def _between(own: Tensor, received: Tensor, a: float) -> Tensor:
    between = torch.lerp(own, received, a)
    if between.isfinite().all():
        return between
    return torch.where(own == received, own, between)  # infinite constants of a mask; their difference is NaN


def choose_mixture(
    accuracies: Mapping[float, float], losses: Mapping[float, Tensor], labels: Tensor, baseline: float
) -> float:
    """Return the a to use, by the performance of its mixture on N held-out examples.

    Candidates are the mixtures, except the smallest a, whose accuracy is at least ``baseline``. Among those
    whose cross-entropy is within one standard error of the lowest, the one nearest to 0.5 is chosen, the
    larger of two. 0.5 is the default of Wortsman et al. (CVPR 2022, arXiv:2109.01903); the margin is the
    one-standard-error rule (Breiman, Friedman, Olshen, Stone: Classification and Regression Trees, 1984,
    section 3.4.3). Classes have equal weight: in a plain mean, a model that gives up a rare class would look
    good. Without a candidate the smallest a, the model before, stays; it does not compete by cross-entropy,
    as training makes a model surer of its few errors too, and it would win while being right less often.

    Args:
        accuracies: a -> the class-balanced accuracy of its mixture; see ``evaluation.balanced_accuracy``.
        losses: a -> the (N,) cross-entropies of its mixture.
        labels: (N,) int64 classes.
        baseline: the accuracy that a candidate must reach.
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
    """Return whether the weighted mean of (N,) paired differences is within its standard error of 0."""
    mean, spread = weight @ excess, weight**2
    return bool(mean**2 * (1 - spread.sum()) <= spread @ (excess - mean) ** 2)


ROUNDING = 1e-9
"""Two accuracies that differ by at most this are equal."""
