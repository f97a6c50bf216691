"""Between two models of one shape: their mixtures, and which of these to hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sheaf.types import Params


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
    accuracies: Mapping[float, float], scores: Mapping[float, float], baseline: float
) -> float:
    """The a to hold, by what its mixture does on held-out examples; the least where none is good enough.

    Of the others whose accuracy is at least ``baseline`` it is the one of the least Brier score; of two as
    good the larger. The Brier score, as cross-entropy knows no bound: by it a model that training made surer,
    of its few errors too, loses to one that is right less often.

    Args:
        accuracies, scores: a -> what ``training.judge`` finds of its mixture.
    """
    least = min(accuracies)
    safe = [a for a in accuracies if a > least and accuracies[a] >= baseline - ROUNDING]
    return min(safe, key=lambda a: (scores[a], -a), default=least)


ROUNDING = 1e-9
"""Means over classes that differ by no more are the same."""
