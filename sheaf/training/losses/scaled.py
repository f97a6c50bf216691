"""Another loss of a network whose layers are scaled up in training: the scaler of HeteroFL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import plugin_field, settings
from sheaf.training.step import LossContext


@settings
class Scaled:
    """The loss of a network in which layer outputs are divided by the site's width in training.

    The local loss of ``heterofl``: HeteroFL. Diao, Ding, Tarokh. ICLR 2021. arXiv:2010.01264, section 3.3. A
    sub-model's outputs then have the size of those of the whole model. An output is divided by dividing the
    weight and the bias of its layer. The method names these parameters, with 1 / width, in the loss's
    constants; without any, the loss is that inside.

    Attributes:
        loss: the loss of the scaled network, by name or as a table with its settings.
    """

    loss: Annotated[Any, plugin_field("losses"), Field(validate_default=True)] = "cross_entropy"

    def effective(self, params: Mapping[str, Tensor], context: LossContext) -> dict[str, Tensor]:
        """Return the parameters of the forward pass."""
        scales = context.constants_of("scale")
        return {name: value * scales[name] if name in scales else value for name, value in params.items()}

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        loss: Tensor = self.loss(logits, labels, context)
        return loss
