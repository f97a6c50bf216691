"""The memory layout of a model: channels-last where it has 2-D convolutions and its code allows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ORDINARY = "sheaf_ordinary_layout"
"""An attribute of models that fail in channels-last memory. Copies and sub-models inherit it."""


def uses_channels_last(model: nn.Module) -> bool:
    """Return whether ``model`` runs in channels-last memory.

    It trains MobileNetV2 about twice as fast on a CPU.
    """
    return not getattr(model, ORDINARY, False) and any(isinstance(m, nn.Conv2d) for m in model.modules())


def keep_ordinary_layout(model: nn.Module) -> None:
    """Mark a model that fails in channels-last memory, such as one with ``x.view(len(x), -1)``."""
    setattr(model, ORDINARY, True)


def to_layout(model: nn.Module, channels_last: bool) -> nn.Module:
    """Move the parameters of ``model`` in place to channels-last or to ordinary memory."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    untyped: Any = model  # torch before 2.14 declares no such overload
    untyped.to(memory_format=layout)
    return model
