"""Another loss of a network without its small parameters: the sub-model of FIARSE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import plugin_field, settings
from sheaf.training.step import LossContext


@settings
class ImportanceMask:
    """The loss of theta * M(theta), where M is 1 for parameters of at least the site's threshold t, else 0.

    The local loss of ``fiarse``: FIARSE. Wu, Wang, Wang and others. NeurIPS 2024. arXiv:2407.19389. The
    gradient of M is that of a smooth step: a parameter that M keeps gets its gradient times
    1 + 2 t |theta| / (|theta| + t)^2 (threshold-controlled biased gradient descent). The method brings t of
    each masked parameter as constants; without them, the loss is that inside.

    Attributes:
        loss: the loss of the masked network, by name or as a table with its settings.
    """

    loss: Annotated[Any, plugin_field("losses"), Field(validate_default=True)] = "cross_entropy"

    def effective(self, params: Mapping[str, Tensor], context: LossContext) -> dict[str, Tensor]:
        """Return the parameters of the forward pass."""
        thresholds = context.constants_of("threshold")
        return {
            name: _masked(value, thresholds[name]) if name in thresholds else value
            for name, value in params.items()
        }

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        loss: Tensor = self.loss(logits, labels, context)
        return loss


def _masked(value: Tensor, threshold: Tensor) -> Tensor:
    fixed = value.detach()
    size = fixed.abs()
    mask = (size >= threshold).to(value.dtype)
    slope = mask * (1 + 2 * threshold * size / (size + threshold).square().clamp_min(1e-30))
    return fixed * mask + (value - fixed) * slope  # the second term is 0, and has the gradient
