"""Cross-entropy of the softmax, the usual loss of a classifier."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sheaf.core.settings import settings
from sheaf.training.step import LossContext


@settings
class CrossEntropy:
    """The mean of -log softmax(z)[y] over the mini-batch."""

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        return F.cross_entropy(logits, labels)
