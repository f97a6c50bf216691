"""Each class is spread over the edges by chance; ``alpha`` says how unevenly.

Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification.
Hsu, Qi, Brown, 2019. https://arxiv.org/abs/1909.06335
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import Count, as_positions, deal, edge_names, shuffled_classes


@settings
class Dirichlet:
    """Of each class, the edges' shares are drawn from a symmetric Dirichlet distribution.

    Every image is on one edge.

    Attributes:
        edges: how many.
        alpha: 100 is about even, 0.1 leaves most of a class to one or two edges.
    """

    edges: Count = 2
    alpha: Annotated[float, Field(ge=1e-3)] = 0.5

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Edge -> sorted int64 positions in ``labels``, which are (N,) int64 below K.

        Raises:
            PartitionError: chance leaves an edge empty; a larger ``alpha`` or another seed may not.
        """
        rng = np.random.default_rng(seed)
        piles = shuffled_classes(labels, classes, rng)
        dealt = [deal(pile, rng.dirichlet([self.alpha] * self.edges)) for pile in piles]
        return as_positions(edge_names(self.edges), list(zip(*dealt, strict=True)))
