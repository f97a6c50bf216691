"""Which of its samples an edge sends up."""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import Share
from sheaf.core.seeds import generator
from sheaf.core.wire_format import samples_within


def choose_samples(samples: Samples, share: Share, seed: int, logits: Tensor | None = None) -> Tensor:
    """(n,) sorted indices into the N ``samples``: what ``share`` lets go up.

    Args:
        logits: (N, K) of the model that the edge holds; only for ``choose = "uncertain"``.

    Raises:
        DataError: the limit in bytes is less than one sample takes.
    """
    count = _how_many(samples, share)
    order = torch.randperm(len(samples), generator=generator(seed))
    if share.choose == "balanced":
        order = order[torch.argsort(_rank_in_class(samples.labels[order]), stable=True)]
    elif share.choose == "uncertain":
        assert logits is not None, "uncertainty is a model's"
        order = torch.argsort(_entropy(logits), descending=True, stable=True)
    return order[:count].sort().values


def _how_many(samples: Samples, share: Share) -> int:
    count = round(share.fraction * len(samples))
    if share.count is not None:
        count = min(count, share.count)
    if share.bytes is not None:
        fit = samples_within(share.bytes, samples)
        if fit < 1:
            raise DataError(f"share.bytes = {share.bytes} is less than one sample takes")
        count = min(count, fit)
    return count


def _rank_in_class(labels: Tensor) -> Tensor:
    """(N,) how many examples of the same class come before each."""
    by_class = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return rank


def _entropy(logits: Tensor) -> Tensor:
    """(N,) of the predicted class, in nats."""
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
