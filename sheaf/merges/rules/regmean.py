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
        fits: dict[str, LeastSquares] = {}

        def contributions() -> Iterator[Contribution]:
            for update in updates:
                params = update.params
                for name, gram in update.statistics.items():
                    fit = fits.setdefault(name, LeastSquares(self.off_diagonal))
                    fit.add(params[name], gram, update.examples)
                yield Contribution(params, float(update.examples))

        merged = average(theta, contributions())
        for name, fit in fits.items():
            merged[name] = fit.solve(merged[name])
        return merged


class LeastSquares:
    """The fit of one layer's weight to the outputs of the edges' layers, (sum_k G_k)^-1 sum_k G_k W_k.

    Args:
        off_diagonal: factor on the off-diagonal entries of the Gram matrices.
    """

    def __init__(self, off_diagonal: float) -> None:
        self._off_diagonal = off_diagonal
        self._gram: Tensor | None = None
        self._fit = torch.zeros(())

    def add(self, weight: Tensor, gram: Tensor, examples: int) -> None:
        """Add an edge's weight and its Gram matrix, the mean over so many examples."""
        gram = gram.double().mul_(examples)
        gram = gram.mul(self._off_diagonal) + gram.diagonal().mul(1 - self._off_diagonal).diag()
        fit = gram @ weight.double().flatten(1).T
        self._fit = fit if self._gram is None else self._fit.add_(fit)
        self._gram = gram if self._gram is None else self._gram.add_(gram)

    def solve(self, mean: Tensor) -> Tensor:
        """Return the fitted weight; of inputs that no edge has seen, that of ``mean``."""
        assert self._gram is not None
        start = mean.double().flatten(1).T
        rest = self._fit - self._gram @ start  # the residual that the mean does not fit
        self._gram.diagonal().add_(max(RIDGE * self._gram.diagonal().mean().item(), torch.finfo().tiny))
        solved: Tensor = start + torch.linalg.solve(self._gram, rest)
        return solved.T.reshape(mean.shape).to(mean.dtype)
