"""Choice of the training samples that an edge sends up."""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import Share
from sheaf.core.seeds import generator
from sheaf.core.wire_format import samples_within
from sheaf.data.class_balance import rank_in_class


def choose_samples(samples: Samples, share: Share, seed: int, logits: Tensor | None = None) -> Tensor:
    """Return (n,) sorted indices into the N ``samples``, as many as ``share`` allows.

    Args:
        samples: the edge's training samples.
        share: limits and strategy.
        seed: of the random order.
        logits: (N, K) of the edge's model; required for ``share.choose = "uncertain"`` only.

    Raises:
        DataError: ``share.bytes`` is too small for one sample.
    """
    count = _count(samples, share)
    order = torch.randperm(len(samples), generator=generator(seed))
    if share.choose == "balanced":
        rank = torch.from_numpy(rank_in_class(samples.labels[order].numpy()))
        order = order[torch.argsort(rank, stable=True)]
    elif share.choose == "uncertain":
        assert logits is not None, 'choose = "uncertain" needs logits'
        order = torch.argsort(_entropy(logits), descending=True, stable=True)
    return order[:count].sort().values


def _count(samples: Samples, share: Share) -> int:
    """Return the number of samples to send: the smallest of the limits."""
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
