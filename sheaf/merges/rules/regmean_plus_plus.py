"""RegMean++: RegMean, where a layer's inputs are those that the merged layers before it make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.merges.rules.regmean import LeastSquares
from sheaf.training.network import Network


@settings
class RegmeanPlusPlus:
    """W = (sum_k G_k)^-1 sum_k G_k W_k, layer by layer, with G_k = X_k'X_k of the layers merged so far.

    RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model Merging. Nguyen,
    Huu-Tien, Suzuki, Nguyen 2025. arXiv:2508.03121. ``regmean`` takes X_k from edge k's own layers, but the
    merged layer gets its inputs from merged layers. The authors' code fits the layers of a transformer block
    together.

    The edges compute the Gram matrices in a call for each layer: an edge runs one forward pass and sends one
    G, of the size of its squared fan-in. The cloud sends the averaged model in the first call and only the
    layer fitted last in each further one, so an edge receives about two models for all layers; an edge that
    missed a call receives the whole model again. In the paper, models and data are in one place.

    Attributes:
        off_diagonal: factor on the off-diagonal entries of the Gram matrices.
        examples: the number of training examples on which an edge computes its Gram matrices; None for all.
    """

    off_diagonal: Annotated[float, Field(ge=0, le=1)] = 0.95
    examples: Annotated[int, Field(ge=1)] | None = None

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Return the mean weighted by examples, from which ``Edges.merge`` fits the layers."""
        return average(theta, (Contribution(update.params, float(update.examples)) for update in updates))

    def fit_layer(
        self, merged: Params, updates: Sequence[Update], sent: Sequence[Update], layer: str
    ) -> dict[str, Tensor]:
        """Return ``merged`` with the fitted weight of one layer.

        Args:
            merged: the model merged so far.
            updates: the edges' models.
            sent: the edges' Gram matrices of the layer in ``merged``.
            layer: the name of the weight.
        """
        fit, grams = LeastSquares(self.off_diagonal), {update.site: update for update in sent}
        for update in (update for update in updates if update.site in grams):
            fit.add(update.params[layer], grams[update.site].statistics[layer], update.examples)
        return {**merged, layer: fit.solve(merged[layer])}
