"""Median of each coordinate over the edges: a minority of wrong updates moves it little."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.coordinatewise import coordinatewise
from sheaf.training.network import Network


@settings
class Median:
    """theta[i] = median_k theta_k[i]; of an even number of edges, the mean of the middle two.

    Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates. Yin, Chen, Ramchandran,
    Bartlett. ICML 2018. arXiv:1803.01498, definition 1. Edges have equal weight: a
    number of examples could be forged.
    """

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merge the updates; see ``coordinatewise``."""

        def middle(ascending: Tensor) -> Tensor:
            count = len(ascending)
            return ascending[(count - 1) // 2 : count // 2 + 1].mean(0)

        return coordinatewise(theta, updates, middle)
