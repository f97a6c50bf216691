"""Each edge has all examples of its own classes: the partition of the ECAvg paper."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import ClassesOfEdges, deal, merge_piles, owned_classes, shuffled_classes


@settings
class Classes:
    """Partition by class. Every example is on one edge.

    Attributes:
        edges: the number of edges, at least 1, which divides the classes in their order into that number of
            runs (as equal as possible, the first ones longer); or a list of the classes of each edge, by
            index or name; or a table of these lists by the edges' names. The examples of a class that
            several edges list are divided evenly among them.
    """

    edges: ClassesOfEdges = 2

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the sorted int64 positions of each edge in ``labels``, (N,) int64 below K.

        Raises:
            PartitionError: an edge's name is invalid, a class is unknown or on no edge, or an edge has no
                example.
        """
        owned = owned_classes(self.edges, classes)
        piles = shuffled_classes(labels, classes, np.random.default_rng(seed))
        sizes = np.array([[index in own for own in owned.values()] for index in range(len(classes))])
        dealt = [deal(pile, sizes[index], index) for index, pile in enumerate(piles)]
        return merge_piles(list(owned), list(zip(*dealt, strict=True)))
