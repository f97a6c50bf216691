"""RegMean: each linear layer and convolution becomes the least-squares fit to what the edges' own give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.recipe import Statistic
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import average
from sheaf.training.network import Network

RIDGE = 1e-8
"""Of the mean of the diagonal: inputs that no edge has seen leave their weights at the mean."""


@settings
class Regmean:
    """W = (sum_k G_k)^-1 sum_k G_k W_k, with G_k = X_k'X_k of the rows that the layer takes on edge k.

    Dataless Knowledge Fusion by Merging Weights of Language Models. Jin, Ren, Preotiuc-Pietro, Cheng. ICLR
    2023. arXiv:2212.09849. As there, biases and all else are means (here weighted by examples); a convolution
    is the linear layer over patches that it is, a grouped one a mean.

    A G has the square of a layer's fan-in as its size, and goes up with each update.

    Attributes:
        off_diagonal: what the Gram matrices' entries off the diagonal are multiplied by.
        examples: how many of its training examples an edge computes its Gram matrices on; all by default.
    """

    off_diagonal: Annotated[float, Field(ge=0, le=1)] = 0.95
    examples: Annotated[int, Field(ge=1)] | None = None

    @property
    def statistic(self) -> Statistic:
        """What each update has to carry."""
        return Statistic("gram", self.examples)

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merges the updates, one at a time."""
        grams: dict[str, Tensor] = {}
        fits: dict[str, Tensor] = {}

        def weighted() -> Iterator[tuple[Params, float]]:
            for update in updates:
                params = update.params
                for name, found in update.statistics.items():
                    gram = found.double().mul_(update.examples)
                    gram = gram.mul(self.off_diagonal) + gram.diagonal().mul(1 - self.off_diagonal).diag()
                    fit = gram @ params[name].double().flatten(1).T
                    grams[name] = grams[name].add_(gram) if name in grams else gram
                    fits[name] = fits[name].add_(fit) if name in fits else fit
                yield params, float(update.examples)

        merged = average(theta, weighted())
        for name, gram in grams.items():
            mean = merged[name].double().flatten(1).T
            rest = fits.pop(name) - gram @ mean  # what the mean leaves to be fitted
            gram.diagonal().add_(max(RIDGE * gram.diagonal().mean().item(), torch.finfo().tiny))
            solved = mean + torch.linalg.solve(gram, rest)
            merged[name] = solved.T.reshape(theta[name].shape).to(theta[name].dtype)
        return merged
