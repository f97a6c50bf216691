"""Batch norm over mini-batches that several processes share.

Every process computes some rows of each mini-batch. Mean and variance are those of all rows, as in one
process, and gradients flow through them. ``torch.nn.SyncBatchNorm`` does the same, but on GPUs only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def synchronized(model: nn.Module, group: dist.ProcessGroup) -> Iterator[None]:
    """Let the batch norms of ``model`` normalise over the rows of all processes in this context."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    for layer in layers:
        layer.forward = partial(_forward, layer, group)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: _BatchNorm, group: dist.ProcessGroup, x: Tensor) -> Tensor:
    if not layer.training and layer.running_mean is not None:
        plain: Tensor = type(layer).forward(layer, x)
        return plain
    exact = x if x.dtype == torch.float64 else x.float()
    rows = (0, *range(2, x.dim()))
    shape = (1, -1, *[1] * (x.dim() - 2))
    count = exact.new_tensor([x.numel() // x.shape[1]])
    totals = _sum(torch.cat([exact.sum(rows), count]), group)
    count = totals[-1].detach()
    mean = totals[:-1] / count
    centred = exact - mean.view(shape)
    variance = _sum(centred.square().sum(rows), group) / count
    if layer.training and layer.track_running_stats:
        _update_statistics(layer, mean.detach(), variance.detach() * (count / (count - 1)))
    y = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.weight is not None:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


@torch.no_grad()
def _update_statistics(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked += 1
    momentum = 1 / layer.num_batches_tracked.item() if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var.dtype), momentum)


def _sum(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    apply: Callable[..., Tensor] = _Sum.apply  # typed in some releases of torch only
    return apply(value, group)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Return the sum."""
        ctx.group = group
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the sum of the gradients."""
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
