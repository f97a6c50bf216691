"""Another loss plus a linear term that corrects its gradients: the local step of SCAFFOLD."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import plugin_field, settings
from sheaf.training.step import LossContext


@settings
class ControlVariate:
    """h(theta) = loss + <c - c_i, theta>, whose gradient is that of the loss, minus c_i, plus c.

    The local loss of ``scaffold``: SCAFFOLD. Karimireddy, Kale, Mohri and others. ICML 2020.
    arXiv:1910.06378, algorithm 1, line 10. The method brings c - c_i as constants; without them, the loss is
    that inside.

    Attributes:
        loss: the loss to which the term is added, by name or as a table with its settings.
    """

    needs: ClassVar[tuple[str, ...]] = ("params",)

    loss: Annotated[Any, plugin_field("losses"), Field(validate_default=True)] = "cross_entropy"

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        loss: Tensor = self.loss(logits, labels, context)
        for name, correction in context.constants_of("correction").items():
            loss = loss + (correction * context.params[name]).sum()
        return loss
