"""Each class is divided among the edges at random; a smaller ``alpha`` is more uneven.

Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification.
Hsu, Qi, Brown, 2019. https://arxiv.org/abs/1909.06335
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import Count, deal, edge_names, merge_piles, shuffled_classes


@settings
class Dirichlet:
    """Partition by class fractions that are drawn from a symmetric Dirichlet distribution.

    Every example is on one edge.

    Attributes:
        edges: the number of edges, at least 1.
        alpha: the concentration, at least 0.001: 100 is about even, and with 0.1 most of a class is on one
            or two edges.
    """

    edges: Count = 2
    alpha: Annotated[float, Field(ge=1e-3)] = 0.5

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the sorted int64 positions of each edge in ``labels``, (N,) int64 below K.

        Raises:
            PartitionError: an edge has no example; raise ``alpha`` or change the seed.
        """
        rng = np.random.default_rng(seed)
        piles = shuffled_classes(labels, classes, rng)
        dealt = [deal(pile, rng.dirichlet([self.alpha] * self.edges)) for pile in piles]
        return merge_piles(edge_names(self.edges), list(zip(*dealt, strict=True)))
