"""All edges have the same mix of classes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import (
    Count,
    Share,
    as_positions,
    deal,
    edge_names,
    equal_or,
    shuffled_classes,
)


@settings
class IID:
    """Each class is shuffled and dealt out: every image is on one edge.

    Attributes:
        edges: how many.
        sizes: how large they are, one positive number for each; unset: all alike.
    """

    edges: Count = 2
    sizes: tuple[Share, ...] | None = None

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Edge -> sorted int64 positions in ``labels``, which are (N,) int64 below K.

        Raises:
            PartitionError: there are not as many sizes as edges, or an edge is left empty.
        """
        sizes = equal_or(self.sizes, self.edges)
        piles = shuffled_classes(labels, classes, np.random.default_rng(seed))
        dealt = [deal(pile, sizes, turn) for turn, pile in enumerate(piles)]
        return as_positions(edge_names(self.edges), list(zip(*dealt, strict=True)))
