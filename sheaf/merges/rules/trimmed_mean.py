"""Mean of each coordinate over the edges without its smallest and largest values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.coordinatewise import coordinatewise
from sheaf.training.network import Network


@settings
class TrimmedMean:
    """theta[i] = the mean of theta_k[i] over the edges k that remain.

    Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates. Yin, Chen, Ramchandran,
    Bartlett. ICML 2018. arXiv:1803.01498, definition 2. Edges have equal weight: a
    number of examples could be forged.

    Attributes:
        trim: the fraction of the edges dropped at each end, rounded down: none of two edges.
    """

    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.1

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merge the updates; see ``coordinatewise``."""

        def inner(ascending: Tensor) -> Tensor:
            out = int(self.trim * len(ascending))
            return ascending[out : len(ascending) - out].mean(0)

        return coordinatewise(theta, updates, inner)
