"""Each edge has most examples of its own classes and a few of all others."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import (
    ClassesOfEdges,
    Floats,
    RelativeSize,
    deal,
    equal_or,
    merge_piles,
    owned_classes,
    shuffled_classes,
)


@settings
class Ratio:
    """Partition by class with an overlap. Every example is on one edge.

    With ``edges = 2, own = 0.8``, each of two edges has 80 % of its own half of the classes and 20 % of the
    other half. With ``edges = 2, sizes = [7, 3], own = 1``, the first edge has 7 of 10 classes.

    Attributes:
        edges: the own classes of each edge, in the notation of the partition ``classes``.
        own: the fraction of a class's examples that go to the edges which own it, 0 to 1. The rest is divided
            among the other edges.
        sizes: the relative size of each edge, above 0. Unset: equal. Examples that several edges receive are
            divided in this proportion, and so are the classes if ``edges`` is a number.
    """

    edges: ClassesOfEdges = 2
    own: Annotated[float, Field(ge=0, le=1)] = 0.8
    sizes: tuple[RelativeSize, ...] | None = None

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Return the sorted int64 positions of each edge in ``labels``, (N,) int64 below K.

        Raises:
            PartitionError: an edge's name is invalid, a class is unknown or on no edge, the number of sizes
                is not the number of edges, or an edge has no example.
        """
        owned = owned_classes(self.edges, classes, self.sizes)
        sizes = np.array(equal_or(self.sizes, len(owned)))
        piles = shuffled_classes(labels, classes, np.random.default_rng(seed))
        dealt = []
        for index, pile in enumerate(piles):
            is_own = np.array([index in own for own in owned.values()])
            own = 1.0 if is_own.all() else self.own
            fractions = own * _normalised(sizes * is_own) + (1 - own) * _normalised(sizes * ~is_own)
            dealt.append(deal(pile, fractions, index))
        return merge_piles(list(owned), list(zip(*dealt, strict=True)))


def _normalised(sizes: Floats) -> Floats:
    """Scale ``sizes`` to the sum 1; all zeros stay as they are."""
    return sizes / (sizes.sum() or 1.0)
