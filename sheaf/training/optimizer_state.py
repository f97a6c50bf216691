"""The state of an optimizer as named tensors, with which another process or device continues."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sheaf.core.recipe import Recipe, Statistic, StatisticKind

SLOTS: dict[StatisticKind, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq", "step"),
    "momentum": ("momentum_buffer",),
}
"""Kind of an optimizer's state -> its tensors for each parameter, by their names in ``torch.optim``."""


def statistic_of(recipe: Recipe) -> Statistic | None:
    """Return the statistic that is the state of the recipe's optimizer; None: it has no state."""
    if recipe.optimizer != "sgd":
        return Statistic("adam")
    return Statistic("momentum") if recipe.momentum else None


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that an optimizer changes."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def blank(model: nn.Module, kind: StatisticKind) -> dict[str, Tensor]:
    """Return the names, shapes and types of a state of this kind, on the meta device."""
    return {
        f"{name} {slot}": torch.empty(() if slot == "step" else value.shape, device="meta")
        for name, value in trained_parameters(model).items()
        for slot in SLOTS[kind]
    }


def state_of(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return "PARAMETER SLOT" -> tensor of the optimizer's state. Not copies.

    Args:
        optimizer: over these parameters. Before its first step it has no state.
        parameters: name -> parameter.
    """
    return {
        f"{name} {slot}": value
        for name, parameter in parameters.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def set_state(optimizer: Optimizer, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Give the optimizer copies of the tensors of ``state_of``."""
    for key, value in state.items():
        name, _, slot = key.rpartition(" ")
        parameter = parameters[name]
        optimizer.state[parameter][slot] = value.to(parameter.device, copy=True)


def state_among(constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those constants of a task that are the state of an optimizer; a task may have none."""
    found = {}
    for key, value in constants.items():
        kind, _, name = key.partition(".")
        if kind in SLOTS:
            found[name] = value
    return found
