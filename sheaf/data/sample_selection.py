"""Choice of the training samples that an edge sends up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import Share
from sheaf.core.seeds import generator
from sheaf.core.wire_format import samples_within
from sheaf.data.class_balance import rank_in_class


def choose_samples(
    samples: Samples,
    share: Share,
    seed: int,
    logits: Tensor | None = None,
    may_leave: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return (n,) sorted indices into the N ``samples``, as many as ``share`` allows.

    Args:
        samples: the edge's training samples.
        share: limits and strategy.
        seed: of the random order.
        logits: (N, K) of the edge's model; required for ``share.choose = "uncertain"`` only.
        may_leave: removes indices that may not leave the edge from all indices, the most wanted first.

    Raises:
        DataError: ``share.bytes`` is too small for one sample.
    """
    count = number_to_send(samples, share)
    order = torch.randperm(len(samples), generator=generator(seed))
    if share.choose == "balanced":
        rank = torch.from_numpy(rank_in_class(samples.labels[order].numpy()))
        order = order[torch.argsort(rank, stable=True)]
    elif share.choose == "uncertain":
        assert logits is not None, 'choose = "uncertain" needs logits'
        order = torch.argsort(_entropy(logits), descending=True, stable=True)
    if may_leave is not None:
        order = may_leave(order)
    return order[:count].sort().values


def within_allowance(
    order: Tensor, digests: npt.NDArray[np.uint64], shared: npt.NDArray[np.uint64], left: int
) -> Tensor:
    """Return ``order`` without the samples that would exceed the allowance of an edge.

    Args:
        order: (n,) indices of samples, the most wanted first.
        digests: (N,) hashes of the samples' contents.
        shared: hashes of the samples that have left the edge, which may leave again.
        left: number of other distinct samples that may leave.
    """
    contents = digests[order.numpy()]
    distinct, first, inverse = np.unique(contents, return_index=True, return_inverse=True)
    new = np.flatnonzero(~np.isin(distinct, shared))
    too_many = new[np.argsort(first[new])][left:]
    return order[torch.from_numpy(~np.isin(inverse, too_many))]


def number_to_send(samples: Samples, share: Share) -> int:
    """Return the number of samples to send: the smallest of the limits.

    Raises:
        DataError: ``share.bytes`` is too small for one sample.
    """
    count = round(share.fraction * len(samples))
    if share.count is not None:
        count = min(count, share.count)
    if share.bytes is not None:
        fit = samples_within(share.bytes, samples)
        if fit < 1:
            raise DataError(f"share.bytes = {share.bytes} is less than one encoded sample; raise it")
        count = min(count, fit)
    return count


def _entropy(logits: Tensor) -> Tensor:
    """Return the (N,) entropies of the predicted class probabilities, in nats."""
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
