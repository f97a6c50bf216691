"""All edges have the same mix of classes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import (
    Count,
    RelativeSize,
    deal,
    edge_names,
    equal_or,
    merge_piles,
    shuffled_classes,
)


@settings
class IID:
    """Stratified random partition: each class is shuffled and divided. Every example is on one edge.

    Attributes:
        edges: the number of edges, at least 1.
        sizes: the relative size of each edge, above 0. Unset: equal.
    """

    edges: Count = 2
    sizes: tuple[RelativeSize, ...] | None = None

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the sorted int64 positions of each edge in ``labels``, (N,) int64 below K.

        Raises:
            PartitionError: the number of sizes is not the number of edges, or an edge has no example.
        """
        sizes = equal_or(self.sizes, self.edges)
        piles = shuffled_classes(labels, classes, np.random.default_rng(seed))
        dealt = [deal(pile, sizes, turn) for turn, pile in enumerate(piles)]
        return merge_piles(edge_names(self.edges), list(zip(*dealt, strict=True)))
