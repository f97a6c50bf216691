"""Selection of examples in numbers that are as equal as possible for all classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sheaf.core.seeds import generator
from sheaf.data.readers.encoded import Ints


def rank_in_class(labels: Ints) -> Ints:
    """Return (N,) the number of earlier examples of the same class, for each of the N ``labels``.

    >>> rank_in_class(np.array([5, 7, 5, 5, 7])).tolist()
    [0, 0, 1, 2, 1]
    """
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    rank = np.empty_like(labels)
    rank[by_class] = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    return rank


def first_of_each_class(labels: Ints, limit: int | None) -> Ints:
    """Return the increasing positions of at most ``limit`` examples: the first ones of each class.

    A class with fewer examples than its equal part is taken whole, and the others fill up.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    return np.sort(np.lexsort((labels, rank_in_class(labels)))[:limit])


def draw_test_split(labels: Ints, fraction: float) -> npt.NDArray[np.bool_]:
    """Return (N,) whether an example belongs to the test split: of each class, at least one of two.

    The draw has a fixed seed.
    """
    order = torch.randperm(len(labels), generator=generator(0)).numpy()
    rank = np.empty_like(labels)
    rank[order] = rank_in_class(labels[order])
    counts = np.bincount(labels)
    tests = np.where(counts > 1, np.clip(np.rint(fraction * counts), 1, counts - 1), 0)
    return np.asarray(rank < tests[labels])
