"""Each edge has classes that it sees most of, and some of all others: between ``classes`` and ``iid``."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.data.partitions._common import (
    Edges,
    Floats,
    Share,
    as_positions,
    deal,
    equal_or,
    owned_classes,
    shuffled_classes,
)


@settings
class Ratio:
    """Every image is on one edge.

    ``edges = 2, own = 0.8`` leaves each of two edges 80 % of its own half of the classes and gives
    it 20 % of the other's. ``edges = 2, sizes = [7, 3], own = 1`` gives the first edge 7 of 10
    classes.

    Attributes:
        edges: who has which classes as its own, written as for ``classes``.
        own: how large a share of a class's images stays with the edges whose own it is. The rest is
            dealt out among the other edges.
        sizes: how large the edges are, one positive number for each; unset: all alike. Where
            ``edges`` is a number, they say how many of the classes are each edge's own; everywhere
            they say how images are dealt out among several edges.
    """

    edges: Edges = 2
    own: Annotated[float, Field(ge=0, le=1)] = 0.8
    sizes: tuple[Share, ...] | None = None

    def __call__(self, labels: Tensor, classes: tuple[str, ...], seed: int) -> dict[str, Tensor]:
        """Edge -> sorted int64 positions in ``labels``, which are (N,) int64 below K.

        Raises:
            PartitionError: an edge, class or share cannot be, a class is on no edge, or an edge is
                empty.
        """
        owned = owned_classes(self.edges, classes, self.sizes)
        sizes = np.array(equal_or(self.sizes, len(owned)))
        piles = shuffled_classes(labels, classes, np.random.default_rng(seed))
        dealt = []
        for number, pile in enumerate(piles):
            is_own = np.array([number in own for own in owned.values()])
            others = sizes * ~is_own
            kept = 1.0 if is_own.all() else self.own
            shares = kept * _normal(sizes * is_own) + (1 - kept) * _normal(others)
            dealt.append(deal(pile, shares, number))
        return as_positions(list(owned), list(zip(*dealt, strict=True)))


def _normal(sizes: Floats) -> Floats:
    """Summing to 1, unless there is nothing to sum."""
    return sizes / (sizes.sum() or 1.0)
