"""The examples are sorted by class and divided into equal shards, of which each edge draws a few.

Communication-Efficient Learning of Deep Networks from Decentralized Data.
McMahan, Moore, Ramage, Hampson, Agüera y Arcas, 2017. https://arxiv.org/abs/1602.05629
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sheaf.core.errors import PartitionError
from sheaf.core.settings import settings
from sheaf.data.partitions._common import Count, edge_names, merge_piles, shuffled_classes


@settings
class Shards:
    """Partition by shards of one or two classes. Every example is on one edge.

    An edge has examples of about ``shards_per_edge`` classes.

    Attributes:
        edges: the number of edges, at least 1.
        shards_per_edge: the number of shards of each edge, at least 1. Shards differ by at most one example.
    """

    edges: Count = 2
    shards_per_edge: Count = 2

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the sorted int64 positions of each edge in ``labels``, (N,) int64 below K.

        Raises:
            PartitionError: there are more shards than examples.
        """
        count = self.edges * self.shards_per_edge
        if count > len(labels):
            raise PartitionError(
                f"{len(labels)} examples are too few for {count} shards; "
                "lower partition.edges or partition.shards_per_edge"
            )
        rng = np.random.default_rng(seed)
        shards = np.array_split(np.concatenate(shuffled_classes(labels, classes, rng)), count)
        draws = rng.permutation(count).reshape(self.edges, self.shards_per_edge)
        return merge_piles(edge_names(self.edges), [[shards[i] for i in draw] for draw in draws])
