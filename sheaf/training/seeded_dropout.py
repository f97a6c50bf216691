"""Dropout from a generator of its own, so that networks with dropout can be trained on several threads.

torch's layers draw from the global generator of the process, which threads would do in random order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from sheaf.core.seeds import generator


def drops(model: nn.Module) -> bool:
    """Return whether ``model`` has dropout that draws in training."""
    return bool(_layers(model))


@contextmanager
def dropout_from(model: nn.Module, seed: int) -> Iterator[None]:
    """Let the dropout layers of ``model``, which is on a CPU, draw from ``seed`` in this context.

    The draws are those of torch's global generator if it started from ``seed`` and nothing else drew from it.
    """
    layers, draws = _layers(model), generator(seed)
    for layer in layers:
        layer.forward = partial(_forward, layer, draws)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: nn.Module) -> list[nn.Dropout]:
    return [layer for layer in model.modules() if type(layer) is nn.Dropout and 0 < layer.p < 1]


def _forward(layer: nn.Dropout, draws: torch.Generator, x: Tensor) -> Tensor:
    if not layer.training:
        return x
    keep = 1 - layer.p
    return x * torch.empty_like(x).bernoulli_(keep, generator=draws).div_(keep)
