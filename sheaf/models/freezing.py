"""Layers that stay as they start: everyone's common stem, or what was learned elsewhere."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sheaf.core.errors import SettingError


def freeze(model: nn.Module, convolutions: int) -> None:
    """Freezes the first ``convolutions`` that ``model`` lists, and what stands beside them up to the next.

    Raises:
        SettingError: there are not as many; nothing is left to train.
    """
    there = sum(isinstance(module, _ConvNd) for module in model.modules())
    if convolutions > there:
        raise SettingError(f"model.frozen is {convolutions}, and the model has {there} convolutions")
    seen = 0
    for module in model.modules():
        seen += isinstance(module, _ConvNd)
        if seen > convolutions or (seen == convolutions and isinstance(module, nn.Linear)):
            break
        if next(module.children(), None) is None:
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingError(f"model.frozen is {convolutions}, which leaves nothing to train")


def into_training(model: nn.Module) -> nn.Module:
    """Training mode, in place; but a batch norm that is frozen keeps its statistics too."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and is_frozen(module):
            module.eval()
    return model


def is_frozen(module: nn.Module) -> bool:
    """Whether ``module`` has parameters, and none of them is trained."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
