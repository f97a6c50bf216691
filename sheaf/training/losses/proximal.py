"""Another loss plus FedProx's proximal term, which keeps a site near the model that it was given."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from sheaf.core.settings import plugin_field, settings
from sheaf.training.step import LossContext


@settings
class Proximal:
    """h(theta; theta_start) = loss + mu / 2 ||theta - theta_start||^2.

    The local loss of ``fedprox``: Federated Optimization in Heterogeneous Networks. Li, Sahu, Zaheer,
    Sanjabi, Talwalkar, Smith. MLSys 2020, arXiv:1812.06127, section 3.2, equation 2. The norm runs over the
    trained parameters; running statistics of batch norm are not among them. A method can bring another anchor
    than the start of the task, as ``ditto`` does.

    Attributes:
        mu: strength of the term, above 0.
        loss: the loss to which the term is added, by name or as a table with its settings.
    """

    needs: ClassVar[tuple[str, ...]] = ("params", "start")

    mu: Annotated[float, Field(gt=0)] = 0.01
    loss: Annotated[Any, plugin_field("losses"), Field(validate_default=True)] = "cross_entropy"

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        anchors = {**context.start, **context.constants_of("anchor")}
        distance = sum((value - anchors[name]).square().sum() for name, value in context.params.items())
        loss: Tensor = self.loss(logits, labels, context)
        return loss + self.mu / 2 * distance
