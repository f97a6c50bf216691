"""Between two models of one shape: their mixtures, and which of these to hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sheaf.types import Params

Side = Literal["remembered", "held"]
"""The end of the mixtures at a = 0, and that at a = 1."""


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
    right: Mapping[float, int], losses: Mapping[float, Tensor], labels: Tensor, prefer: Side
) -> float:
    """The a to hold, by what its mixture does on N held-out examples.

    Only an a that gets no fewer right than a = 0 is safe. Of these it is the one nearest to the preferred
    side whose cross-entropy is within one standard error of the least (the one-standard-error rule: Breiman,
    Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3). Every class counts the
    same in the cross-entropy: an edge has few examples of some, and a model that gives these up would look
    good in a plain mean.

    Args:
        right: a -> how many examples its mixture gets right; a = 0 is one of them.
        losses: a -> (N,) cross-entropies.
        labels: (N,) classes.
    """
    counts = labels.bincount().double()
    weight = counts.reciprocal()[labels] / (counts > 0).sum()
    safe = [a for a in sorted(right, reverse=prefer == "held") if right[a] >= right[0]]
    best = min(safe, key=lambda a: (weight @ losses[a].double()).item())
    return next(a for a in safe if _no_worse(losses[a].double() - losses[best].double(), weight))


def _no_worse(excess: Tensor, weight: Tensor) -> bool:
    """Whether the mean of (N,) paired differences, weighted, is within its standard error of 0."""
    mean, spread = weight @ excess, weight**2
    return bool(mean**2 * (1 - spread.sum()) <= spread @ (excess - mean) ** 2)
