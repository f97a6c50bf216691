"""Distillation: a model learns the mean prediction of several models, its teachers, on unlabelled samples."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sheaf.core.settings import settings
from sheaf.training.step import PADDING, LossContext


@settings
class Distillation:
    """T^2 KL(softmax(t / T) || softmax(z / T)), a mean over the mini-batch; t are the teachers' mean logits.

    FedDF: Ensemble Distillation for Robust Model Fusion in Federated Learning. Lin, Kong, Stich, Jaggi.
    NeurIPS 2020, arXiv:2006.07242, equation 3: the teachers are the edges' models before they are merged.
    Only for ``finetune`` of ``ecavg``, ``ecavg_plus`` and ``decoupled``, on unlabelled samples of the cloud
    (``cloud.public``) or on the pool, whose labels are not used. T^2 keeps the size of the gradients (Hinton,
    Vinyals, Dean 2015).

    Attributes:
        temperature: T, above 0; 1 in the paper.
    """

    distils: ClassVar[bool] = True

    temperature: Annotated[float, Field(gt=0)] = 1.0

    def __call__(self, logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
        """Return the loss of (B, K) logits; ``labels`` are rows of the constant ``teacher`` (N, K).

        Without a teacher, the loss is the cross-entropy of labels; a site refuses to train by it.
        """
        if "teacher" not in context.constants:
            return F.cross_entropy(logits, labels)
        real = labels != PADDING
        target = (context.constants["teacher"][labels.clamp(min=0)] / self.temperature).softmax(1)
        each = F.kl_div((logits / self.temperature).log_softmax(1), target, reduction="none").sum(1)
        return self.temperature**2 * (each * real).sum() / real.sum()
