"""Optimizers and learning-rate schedules of a recipe.

Decorators of torch's optimizers import its compiler, ``torch._dynamo``, as slow as importing torch.
They matter to compiled steps only, so the optimizers here are subclasses with the undecorated methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from sheaf.core.recipe import Recipe


def _undecorated(kind: type[Optimizer]) -> type[Any]:
    """Return a subclass of an optimizer whose methods do not import ``torch._dynamo``."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "step")}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(methods["step"])})


KINDS: dict[str, Callable[..., Optimizer]] = {
    "sgd": _undecorated(torch.optim.SGD),
    "adam": _undecorated(torch.optim.Adam),
    "adamw": _undecorated(torch.optim.AdamW),
}
"""Name in a recipe -> the optimizer."""

STEPS_OF_A_PART = 20
"""Steps by which the schedule is evaluated in a part of a training."""


def make_optimizer(parameters: Sequence[Tensor], recipe: Recipe) -> Optimizer:
    """Return the recipe's optimizer over these tensors, as one fused kernel a step."""
    momentum = {"momentum": recipe.momentum} if recipe.optimizer == "sgd" else {}
    return KINDS[recipe.optimizer](
        parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True, **momentum
    )


def make_scheduler(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler | None:
    """Return the recipe's schedule over ``steps`` optimizer steps; None where the rate is constant."""
    if recipe.schedule == "constant" or steps == 0:
        return None
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return OneCycleLR(optimizer, recipe.lr, total_steps=steps, cycle_momentum=False)


def rates_of_parts(recipe: Recipe, parts: int) -> list[float]:
    """Return the learning rate of the recipe's schedule in the middle of each of ``parts`` equal parts."""
    optimizer = make_optimizer([torch.zeros(1, requires_grad=True)], recipe)
    scheduler = make_scheduler(optimizer, recipe, STEPS_OF_A_PART * parts)
    rates = []
    for _ in range(STEPS_OF_A_PART * parts):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return rates[STEPS_OF_A_PART // 2 :: STEPS_OF_A_PART]
