"""Running statistics of batch norm, estimated anew for a merged network."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sheaf.core.dataset import Samples
from sheaf.models.freezing import is_frozen
from sheaf.training.gpu_cache import pick
from sheaf.training.preparation import Preparation, move_model

STATISTICS_BATCH = 512
"""Examples of a mini-batch."""


def reestimate_statistics(model: nn.Module, samples: Samples, prepare: Preparation) -> None:
    """Set the running statistics of every batch norm that is not frozen to the averages over ``samples``.

    The statistics of an average of networks are not the average of their statistics.
    """
    move_model(model, prepare.device).eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and not is_frozen(module)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average
        norm.train()
    with torch.no_grad():
        # Mini-batches of one size, as each has the same weight in the cumulative average.
        for positions in torch.tensor_split(samples.positions, math.ceil(len(samples) / STATISTICS_BATCH)):
            model(prepare(pick(samples.inputs, positions, prepare.device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
