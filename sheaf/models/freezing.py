"""Frozen layers: a stem that all edges have in common, or pretrained layers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sheaf.core.errors import SettingError


def freeze(model: nn.Module, convolutions: int) -> None:
    """Freeze the first ``convolutions`` of ``model`` and the other layers before the next convolution.

    The order is that of ``model.modules()``. After the last of the convolutions, a linear layer ends the
    frozen part as well.

    Raises:
        SettingError: the model has fewer convolutions, or all its parameters would be frozen.
    """
    available = sum(isinstance(module, _ConvNd) for module in model.modules())
    if convolutions > available:
        raise SettingError(f"model.frozen = {convolutions} exceeds the {available} convolutions of the model")
    seen = 0
    for module in model.modules():
        seen += isinstance(module, _ConvNd)
        if seen > convolutions or (seen == convolutions and isinstance(module, nn.Linear)):
            break
        if next(module.children(), None) is None:
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingError(f"model.frozen = {convolutions} leaves no parameter to train; lower it")


def into_training(model: nn.Module) -> nn.Module:
    """Set ``model`` to training mode in place, except for frozen batch norms, whose statistics stay fixed."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and is_frozen(module):
            module.eval()
    return model


def is_frozen(module: nn.Module) -> bool:
    """Return whether ``module`` has parameters and all of them are frozen."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
