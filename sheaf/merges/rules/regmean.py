"""RegMean: each linear layer and convolution is a least-squares fit to the edges' outputs."""

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
from sheaf.merges.average import Contribution, average
from sheaf.training.network import Network

RIDGE = 1e-8
"""Added to the diagonal, as a fraction of its mean: weights of inputs that no edge has seen keep the mean."""


@settings
class Regmean:
    """W = (sum_k G_k)^-1 sum_k G_k W_k, with G_k = X_k'X_k and X_k the layer's input rows on edge k.

    Dataless Knowledge Fusion by Merging Weights of Language Models. Jin, Ren, Preotiuc-Pietro, Cheng. ICLR
    2023. arXiv:2212.09849. As there, biases and all other parameters are means (here weighted by examples). A
    convolution is treated as a linear layer over patches; a grouped one is averaged.

    Each update carries one G a layer, of the size of its squared fan-in.

    Attributes:
        off_diagonal: factor on the off-diagonal entries of the Gram matrices.
        examples: the number of training examples on which an edge computes its Gram matrices; None for all.
    """

    off_diagonal: Annotated[float, Field(ge=0, le=1)] = 0.95
    examples: Annotated[int, Field(ge=1)] | None = None

    @property
    def statistic(self) -> Statistic:
        """The statistic that each update carries."""
        return Statistic("gram", self.examples)

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merge the updates, one at a time."""
        grams: dict[str, Tensor] = {}
        fits: dict[str, Tensor] = {}

        def contributions() -> Iterator[Contribution]:
            for update in updates:
                params = update.params
                for name, found in update.statistics.items():
                    gram = found.double().mul_(update.examples)
                    gram = gram.mul(self.off_diagonal) + gram.diagonal().mul(1 - self.off_diagonal).diag()
                    fit = gram @ params[name].double().flatten(1).T
                    grams[name] = grams[name].add_(gram) if name in grams else gram
                    fits[name] = fits[name].add_(fit) if name in fits else fit
                yield Contribution(params, float(update.examples))

        merged = average(theta, contributions())
        for name, gram in grams.items():
            mean = merged[name].double().flatten(1).T
            rest = fits.pop(name) - gram @ mean  # the residual that the mean does not fit
            gram.diagonal().add_(max(RIDGE * gram.diagonal().mean().item(), torch.finfo().tiny))
            solved = mean + torch.linalg.solve(gram, rest)
            merged[name] = solved.T.reshape(theta[name].shape).to(theta[name].dtype)
        return merged
