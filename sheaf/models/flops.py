"""Computational cost of inference and training, in multiply-adds of convolutions and matrix products.

A large network is counted on torch's meta device, which propagates shapes without computing values.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


def macs_per_example(model: nn.Module, in_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of the forward pass of one example of shape ``in_shape``."""
    return _count(model, in_shape, training=False)


def train_macs_per_example(model: nn.Module, in_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of the forward and backward pass of one example.

    The gradient of a layer's weights costs as much as its forward pass, and so does the gradient of its
    inputs. The former is needed if the weights are trained, the latter if an earlier layer is.
    """
    return _count(model, in_shape, training=True)


FEW_PARAMETERS, SMALL_INPUT = 4_000_000, 3 * 64 * 64
"""Limits up to which a network is counted by running it on the CPU.

Below them, running it takes little memory, and a third of the time of the meta device for MobileNetV2.
"""


def is_small(model: nn.Module, in_shape: tuple[int, ...]) -> bool:
    """Return whether running ``model`` on the CPU takes less time than on the meta device.

    The first operation there imports torch's compiler, in the time of ``import torch``.
    """
    return (
        sum(each.numel() for each in model.parameters()) <= FEW_PARAMETERS and prod(in_shape) <= SMALL_INPUT
    )


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts FLOPs by the formulas of a ``FlopCounterMode``, without the import of torch's compiler.

    Args:
        formulas: operation -> the FLOPs of its arguments and result.

    Attributes:
        flops: two for each multiply-add.
    """

    def __init__(self, formulas: Mapping[Any, Callable[..., int]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._formulas = formulas

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch would import its compiler to exclude the next method from it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count one operation; one without a formula is decomposed where torch can do that."""
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _count(model: nn.Module, in_shape: tuple[int, ...], training: bool) -> int:
    if not is_small(model, in_shape) or any(each.is_meta for each in model.parameters()):
        # Fails if a user's model has tensors that are no buffers, or depends on values.
        with contextlib.suppress(RuntimeError, NotImplementedError):
            return _count_on(torch.device("meta"), model, in_shape, training)
    return _count_on(torch.device("cpu"), model, in_shape, training)


def _count_on(device: torch.device, model: nn.Module, in_shape: tuple[int, ...], training: bool) -> int:
    batch = 2  # batch normalisation over one position cannot train on one example
    model = copy_to(device, model).train(training)
    standard = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )

    def run() -> None:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            inputs = torch.zeros(batch, *in_shape, device=device)
            if not training:  # without gradients, attention is one operation, which has no formula
                model.requires_grad_(False)
                inputs = inputs.requires_grad_().clone()
            output: Tensor = model(inputs)
            if training and output.requires_grad:
                output.sum().backward()  # type: ignore[no-untyped-call]

    with _without_onednn():
        try:
            with _Counter(standard.flop_registry) as counter:
                run()
            flops: int = counter.flops
        except NotImplementedError:  # such as a control-flow operator
            with standard:
                run()
            flops = standard.get_total_flops()
    return flops // 2 // batch


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Let torch not use oneDNN inside the block: its LSTM is one operation, which has no formula."""
    (enabled, *_) = torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(enabled)  # type: ignore[no-untyped-call]


def copy_to(device: torch.device, model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` on ``device``, without an intermediate copy on the model's device.

    The copy of a tensor without values, on the meta device, is zero.
    """

    def copy_of(tensor: Tensor) -> Tensor:
        if tensor.is_meta and device.type != "meta":
            return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
        return tensor.detach().to(device, copy=True)

    moved: dict[int, Any] = {}  # deepcopy's memo: objects that count as copied already
    for parameter in model.parameters():
        moved[id(parameter)] = nn.Parameter(copy_of(parameter), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        moved[id(buffer)] = copy_of(buffer)
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
    """Return the FLOPs (two per multiply-add) of a convolution's backward pass.

    Replaces torch's formula, which counts grouped convolutions as dense ones. The gradient of the input and
    the gradient of the weight have one product each for every product in the forward pass.
    """
    positions = prod((x_shape if transposed else grad_out_shape)[2:])
    forward = 2 * x_shape[0] * positions * prod(w_shape)
    return forward * (output_mask[0] + output_mask[1])
