"""Restricted softmax: logits of classes without local examples are scaled down or masked."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sheaf.core.settings import settings
from sheaf.training.step import LossContext


@settings
class RestrictedSoftmax:
    """Cross-entropy on z_c for the classes that the site has examples of, and on alpha z_c for the others.

    The site then unlearns the classes that it never sees less thoroughly. FedRS: Federated Learning with
    Restricted Softmax for Label Distribution Non-IID Data. Li, Zhan. KDD 2021, equation 6.
    https://doi.org/10.1145/3447548.3467254

    Attributes:
        alpha: from 0 (the masked loss of HeteroFL) to 1 (the plain softmax); ``"mask"`` leaves the other
            classes out of the softmax.
    """

    needs: ClassVar[tuple[str, ...]] = ("present",)

    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["mask"] = 0.5

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; see ``sheaf.training.losses``."""
        assert context.present is not None
        others = -math.inf if self.alpha == "mask" else self.alpha * logits
        return F.cross_entropy(torch.where(context.present, logits, others), labels)
