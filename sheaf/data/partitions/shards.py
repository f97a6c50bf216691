"""Images sorted by class are cut into equal shards, and each edge draws a few.

Communication-Efficient Learning of Deep Networks from Decentralized Data.
McMahan, Moore, Ramage, Hampson, Agüera y Arcas, 2017. https://arxiv.org/abs/1602.05629
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sheaf.core.errors import PartitionError
from sheaf.core.settings import settings
from sheaf.data.partitions._common import Count, as_positions, edge_names, shuffled_classes


@settings
class Shards:
    """Every image is on one edge; an edge has images of about ``shards_per_edge`` classes.

    Attributes:
        edges: how many.
        shards_per_edge: how many shards each draws. Shards differ by one image at most.
    """

    edges: Count = 2
    shards_per_edge: Count = 2

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Edge -> sorted int64 positions in ``labels``, which are (N,) int64 below K.

        Raises:
            PartitionError: there are more shards than images.
        """
        count = self.edges * self.shards_per_edge
        if count > len(labels):
            raise PartitionError(f"{len(labels)} images cannot be cut into {count} shards")
        rng = np.random.default_rng(seed)
        shards = np.array_split(np.concatenate(shuffled_classes(labels, classes, rng)), count)
        draws = rng.permutation(count).reshape(self.edges, self.shards_per_edge)
        return as_positions(edge_names(self.edges), [[shards[i] for i in draw] for draw in draws])
