"""Dropout that draws from a generator of its own, so that networks with it can be trained side by side.

torch's layers draw from the one generator of the process; threads would do so in an order of chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from sheaf.core.seeds import generator


def drops(model: nn.Module) -> bool:
    """Whether ``model`` has dropout that draws in training."""
    return bool(_layers(model))


@contextmanager
def dropout_from(model: nn.Module, seed: int) -> Iterator[None]:
    """Meanwhile the dropout of ``model``, which is on a CPU, draws from ``seed``.

    It draws what it would from torch's generator if that began with ``seed`` and nothing else drew from it.
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
    kept = 1 - layer.p
    return x * torch.empty_like(x).bernoulli_(kept, generator=draws).div_(kept)
