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
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
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
    apply: Callable[..., tuple[Tensor, ...]] = _Normalized.apply  # typed in some releases of torch only
    y, mean, variance, count = apply(exact, layer.weight, layer.bias, layer.eps, group)
    if layer.training and layer.track_running_stats:
        _update_statistics(layer, mean, variance * (count / (count - 1)))
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


class _Normalized(torch.autograd.Function):
    """The rows of this process, normalised over the rows of all; one all-reduce forwards and one backwards.

    Mean and variance of all rows follow from those of each process (Chan, Golub, LeVeque 1979). The kernels
    are those of batch norm in evaluation mode, which take given statistics.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the normalised rows, and mean, biased variance and number of the values of all processes."""
        number = x.numel() // x.shape[1]
        if number:
            own = torch.stack(torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)).double()
            own[1] += own[0].square()
        else:  # fewer rows than processes
            own = x.new_zeros(2, x.shape[1], dtype=torch.float64)
        sums = torch.cat([own.flatten() * number, own.new_tensor([number])])
        dist.all_reduce(sums, group=group)
        count = sums[-1]
        mean, of_squares = (sums[:-1] / count).view_as(own)
        variance = (of_squares - mean.square()).clamp_min_(0).to(x.dtype)
        mean = mean.to(x.dtype)
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the rows, and this process's parts of those of weight and bias."""
        x, weight, mean, variance, count = ctx.saved_tensors
        of_rows, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([of_weight, of_bias]).double()
        dist.all_reduce(sums, group=ctx.group)
        scale = (variance + ctx.eps).rsqrt() if weight is None else weight * (variance + ctx.eps).rsqrt()
        by_weight, by_bias = (sums / count).to(x.dtype)
        # Mean and variance depend on every row.
        of_rows -= F.batch_norm(x, mean, variance, scale * by_weight, scale * by_bias, eps=ctx.eps)
        if weight is None:
            return of_rows, None, None, None, None
        return of_rows, of_weight, of_bias, None, None
