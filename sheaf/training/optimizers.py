"""Optimizers and learning-rate schedules of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from sheaf.core.recipe import Recipe


def make_optimizer(parameters: Sequence[Tensor], recipe: Recipe) -> Optimizer:
    """Return the recipe's optimizer over these tensors, as one fused kernel a step."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def make_scheduler(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler | None:
    """Return the recipe's schedule over ``steps`` optimizer steps; None where the rate is constant."""
    if recipe.schedule == "constant" or steps == 0:
        return None
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return OneCycleLR(optimizer, recipe.lr, total_steps=steps, cycle_momentum=False)
