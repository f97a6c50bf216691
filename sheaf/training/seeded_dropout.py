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
from sheaf.training.batches import Rows


def drops(model: nn.Module) -> bool:
    """Return whether ``model`` has dropout that draws in training."""
    return bool(_layers(model))


@contextmanager
def dropout_from(model: nn.Module, seed: int, rows: Rows | None = None) -> Iterator[None]:
    """Let the dropout layers of ``model``, which is on a CPU, draw from ``seed`` in this context.

    The draws are those of torch's global generator if it started from ``seed`` and nothing else drew from it.

    Args:
        model: the network.
        seed: of the draws.
        rows: the rows of each mini-batch that the network gets, with the draws of these rows; None: all.
    """
    layers, draws = _layers(model), generator(seed)
    for layer in layers:
        layer.forward = partial(_forward, layer, draws, rows)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: nn.Module) -> list[nn.Dropout]:
    return [layer for layer in model.modules() if type(layer) is nn.Dropout and 0 < layer.p < 1]


def _forward(layer: nn.Dropout, draws: torch.Generator, rows: Rows | None, x: Tensor) -> Tensor:
    if not layer.training:
        return x
    keep = 1 - layer.p
    if rows is None:
        return x * torch.empty_like(x).bernoulli_(keep, generator=draws).div_(keep)
    own = rows.stop - rows.start
    each = len(x) // own if own else 1  # layers before may have made several rows of one
    order = torch.channels_last if x.dim() == 4 and _is_channels_last(x) else torch.contiguous_format
    whole = torch.empty((rows.total * each, *x.shape[1:]), dtype=x.dtype, memory_format=order)
    whole.bernoulli_(keep, generator=draws)
    return x * whole[rows.start * each : rows.stop * each].div_(keep)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
