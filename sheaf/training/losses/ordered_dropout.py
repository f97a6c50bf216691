"""Another loss of a network of which each step trains the first channels only: the dropout of FjORD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import plugin_field, settings
from sheaf.training.step import LossContext


@settings
class OrderedDropout:
    """The loss of the network at a width that is drawn for each step, uniformly from a few widths.

    The local loss of ``fjord``: FjORD. Horvath, Laskaridis, Almeida and others. NeurIPS 2021.
    arXiv:2102.13451, section 3.1. A step uses the first channels of every layer: parameters of the others
    count as zeros, so that they get no gradient. The method brings, as constants, the number of widths and
    the level of each index along each dimension of a parameter, the smallest width that has it; without
    them, the loss is that inside.

    Attributes:
        loss: the loss of the narrower network, by name or as a table with its settings.
    """

    needs: ClassVar[tuple[str, ...]] = ("draw",)

    loss: Annotated[Any, plugin_field("losses"), Field(validate_default=True)] = "cross_entropy"

    def effective(self, params: Mapping[str, Tensor], context: LossContext) -> dict[str, Tensor]:
        """Return the parameters of the forward pass."""
        if "widths" not in context.constants:
            return dict(params)
        assert context.draw is not None
        drawn = (context.draw * context.constants["widths"]).floor()
        masked = dict(params)
        for dim in range(max(value.dim() for value in params.values())):
            for name, levels in context.constants_of(f"level{dim}").items():
                shape = [1] * params[name].dim()
                shape[dim] = -1
                masked[name] = masked[name] * (levels <= drawn).to(params[name].dtype).view(shape)
        return masked

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        loss: Tensor = self.loss(logits, labels, context)
        return loss
