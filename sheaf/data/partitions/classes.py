"""Each edge has classes of its own, all of their images: the split of the ECAvg paper."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import Edges, as_positions, deal, owned_classes, shuffled_classes


@settings
class Classes:
    """Every image is on one edge.

    Attributes:
        edges: how many, which cuts the classes in their order into so many runs (as equal as can
            be, the first ones the longer); or a list of classes for each, by number or name; or a
            table of them by the edge's name. A class that several edges list is dealt out evenly
            among them.
    """

    edges: Edges = 2

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Edge -> sorted int64 positions in ``labels``, which are (N,) int64 below K.

        Raises:
            PartitionError: an edge or a class cannot be, a class is on no edge, or an edge is
                empty.
        """
        owned = owned_classes(self.edges, classes)
        piles = shuffled_classes(labels, classes, np.random.default_rng(seed))
        shares = np.array([[number in own for own in owned.values()] for number in range(len(classes))])
        dealt = [deal(pile, shares[number], number) for number, pile in enumerate(piles)]
        return as_positions(list(owned), list(zip(*dealt, strict=True)))
