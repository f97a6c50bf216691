"""The mean of the weights over the last steps of training, which often does better than the last ones.

Averaging Weights Leads to Wider Optima and Better Generalization. Pavel Izmailov, Dmitrii Podoprikhin,
Timur Garipov, Dmitry Vetrov, Andrew Gordon Wilson. UAI 2018, arXiv:1803.05407. Here the mean is over every
one of the last steps, at the rate that they have, and of the running statistics too: no pass is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Tail:
    """Means over the last steps of trainings that lie in a stack.

    Args:
        state: what is averaged, (S, *shape) each for S sites.
        steps: how many steps each site does.
        share: of the last steps.

    Attributes:
        mean: in the shapes of ``state``, complete after the last step.
    """

    def __init__(self, state: Mapping[str, Tensor], steps: Sequence[int], share: float) -> None:
        self._before = torch.tensor([own - max(1, round(share * own)) for own in steps])
        self.mean = {name: value.detach().clone() for name, value in state.items()}

    def add(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes in what ``step``, counted from 1, made of the first sites: of those that still train."""
        counts = step - self._before
        if int(counts.max()) < 1:
            return
        # What is there before a site's last steps is written over by the first of them.
        weights = 1 / counts.clamp(min=1).double()
        for name, value in state.items():
            mean = self.mean[name][: len(value)]
            own = weights[: len(value)].to(value.device, value.dtype)
            mean.lerp_(value.detach(), own.view(-1, *[1] * (value.dim() - 1)))


def floating(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has a mean: weights and running statistics, but no counters."""
    return {name: value for name, value in state.items() if value.is_floating_point()}
