"""The mean of the weights over the last steps, which often generalizes better than the last weights.

Averaging Weights Leads to Wider Optima and Better Generalization. Pavel Izmailov, Dmitrii Podoprikhin, Timur
Garipov, Dmitry Vetrov, Andrew Gordon Wilson. UAI 2018, arXiv:1803.05407. Here every one of the last steps
counts, at the learning rate that it has, and running statistics are averaged too: no pass is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class WeightAverage:
    """Means of the weights of S sites over their last steps.

    Args:
        values: the weights, (S, *shape) each.
        steps: the number of steps of each site.
        fraction: of the last steps.

    Attributes:
        mean: in the shapes of ``values``; complete after the last step. Tensors that start with an infinite
            value, such as a mask, have none.
    """

    def __init__(self, values: Mapping[str, Tensor], steps: Sequence[int], fraction: float) -> None:
        self._before = torch.tensor([own - max(1, round(fraction * own)) for own in steps])
        self.mean = {
            name: value.detach().clone() for name, value in values.items() if bool(value.isfinite().all())
        }

    def add(self, values: Mapping[str, Tensor], step: int) -> None:
        """Include the weights after ``step``, counted from 1, of the first sites: those that still train."""
        counts = step - self._before
        if int(counts.max()) < 1:
            return
        # A weight of 1 before a site's last steps overwrites the mean; the first of the last steps does too.
        weights = 1 / counts.clamp(min=1).double()
        for name, means in self.mean.items():
            value = values[name]
            mean = means[: len(value)]
            own = weights[: len(value)].to(value.device, value.dtype)
            mean.lerp_(value.detach(), own.view(-1, *[1] * (value.dim() - 1)))


def floating(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values that have a mean: weights and running statistics, but no counters."""
    return {name: value for name, value in state.items() if value.is_floating_point()}
