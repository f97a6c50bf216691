"""What a model costs to run and to train, in multiply-adds.

Counted are convolutions and matrix products; of a large network on torch's meta device, where shapes are
computed and numbers are not.
"""

from __future__ import annotations

import contextlib
import copy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs_per_example(model: nn.Module, in_shape: tuple[int, ...]) -> int:
    """Multiply-adds of classifying one example of (C, H, W)."""
    return _count(model, in_shape, training=False)


def train_macs_per_example(model: nn.Module, in_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one example's forward and backward pass.

    A layer costs its forward pass once more for the gradient of its weights, if these are trained,
    and once more for that of its inputs, if anything before it is trained.
    """
    return _count(model, in_shape, training=True)


FEW_PARAMETERS, SMALL_INPUT = 4_000_000, 3 * 64 * 64
"""Up to so many numbers, computing takes no memory to speak of, and MobileNetV2 a third of what shapes do."""


def _count(model: nn.Module, in_shape: tuple[int, ...], training: bool) -> int:
    parameters = list(model.parameters())
    small = sum(each.numel() for each in parameters) <= FEW_PARAMETERS and prod(in_shape) <= SMALL_INPUT
    if not small or any(each.is_meta for each in parameters):
        # A user's model may hold tensors of its own or look at values; numbers then have to be.
        with contextlib.suppress(RuntimeError, NotImplementedError):
            return _count_on(torch.device("meta"), model, in_shape, training)
    return _count_on(torch.device("cpu"), model, in_shape, training)


def _count_on(device: torch.device, model: nn.Module, in_shape: tuple[int, ...], training: bool) -> int:
    batch = 2  # batch normalisation over one position cannot train on a single example
    model = copy_to(device, model).train(training)
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )
    with counter, torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training):
        output: Tensor = model(torch.zeros(batch, *in_shape, device=device))
        if training and output.requires_grad:
            output.sum().backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() // 2 // batch


def copy_to(device: torch.device, model: nn.Module) -> nn.Module:
    """A copy of ``model`` that takes no memory if ``device`` is meta."""
    moved: dict[int, Any] = {}  # what deepcopy takes for already copied
    for parameter in model.parameters():
        data = parameter.detach().to(device, copy=True)
        moved[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        moved[id(buffer)] = buffer.detach().to(device, copy=True)
    return copy.deepcopy(model, moved)


def _convolution_backward(
    grad_out_shape: list[int],
    x_shape: list[int],
    w_shape: list[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    **_: Any,
) -> int:
    """FLOPs (two per multiply-add). torch's own formula counts grouped convolutions as if dense.

    Every product of an input, a weight and an output position in the forward pass has its one
    counterpart in the gradient of the input, and one in that of the weight.
    """
    positions = prod((x_shape if transposed else grad_out_shape)[2:])
    forward = 2 * x_shape[0] * positions * prod(w_shape)
    return forward * (output_mask[0] + output_mask[1])
