"""Cross-entropy with FedProx's proximal term, which keeps a site near the model that it was given."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sheaf.core.settings import settings
from sheaf.training.step import LossContext


@settings
class Proximal:
    """h(theta; theta_start) = cross-entropy + mu / 2 ||theta - theta_start||^2.

    With it, ``fedavg`` is FedProx: Federated Optimization in Heterogeneous Networks. Li, Sahu, Zaheer,
    Sanjabi, Talwalkar, Smith. MLSys 2020, arXiv:1812.06127, section 3.2, equation 2. The norm runs over the
    trained parameters; running statistics of batch norm are not among them.

    Attributes:
        mu: strength of the term, above 0.
    """

    needs: ClassVar[tuple[str, ...]] = ("params", "start")

    mu: Annotated[float, Field(gt=0)] = 0.01

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        distance = sum((value - context.start[name]).square().sum() for name, value in context.params.items())
        return F.cross_entropy(logits, labels) + self.mu / 2 * distance
