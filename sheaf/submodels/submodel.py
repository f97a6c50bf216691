"""A sub-model: the smaller network that a cut selects, and its parameters inside the global ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from sheaf.core.cut import Cut, Runs
from sheaf.core.errors import CutError, first_line
from sheaf.core.types import Params
from sheaf.submodels.pruning import Removed, check_grouped, prune, remaining
from sheaf.submodels.runs import length_of

Block = tuple[tuple[slice, ...], tuple[slice, ...]]
"""Indices of a block in a tensor of the whole model, and of the same block in the sub-model's tensor."""


class SubModel:
    """A smaller network, and the positions of its parameters in the global ones. See ``ChannelStructure``.

    Args:
        cut: the cut that selects it.
        classes: the classes whose logits it computes, in order.
        model: the whole network on the meta device.
        constants: the model's buffers that are not in its ``state_dict``.
        head: the name of the layer that makes the logits.
        removed: layer -> the channels that it loses.
        in_shape: (C, H, W) of one example.

    Attributes:
        cut: the cut that selects it.
        classes: the classes of its logits, in order; an "other" row of the cut comes after them.

    Raises:
        CutError: a layer cannot lose these channels, or the smaller network does not run.
    """

    def __init__(
        self,
        cut: Cut,
        classes: tuple[int, ...],
        model: nn.Module,
        constants: Mapping[str, Tensor],
        head: str,
        removed: Mapping[str, Removed],
        in_shape: tuple[int, int, int],
    ) -> None:
        self.cut = cut
        self.classes = classes
        self._head = head
        self._constants = constants
        self._skeleton = copy.deepcopy(model)
        self._spans: dict[str, tuple[Runs, ...]] = {
            name: tuple(((0, n),) for n in value.shape) for name, value in model.state_dict().items()
        }
        for layer_name, of_layer in removed.items():
            layer = self._skeleton.get_submodule(layer_name)
            check_grouped(layer_name, layer, of_layer)
            prune(layer, of_layer)
            spans = remaining(model.get_submodule(layer_name), layer, of_layer)
            self._spans |= {f"{layer_name}.{name}": of_tensor for name, of_tensor in spans.items()}
        for name, parameter in model.named_parameters():
            self._skeleton.get_parameter(name).requires_grad_(parameter.requires_grad)
        for name, value in self._skeleton.state_dict().items():
            if tuple(value.shape) != tuple(map(length_of, self._spans[name])):
                raise CutError(f"{name} was cut to {tuple(value.shape)}, which its positions do not fit")
        if cut.other:
            _widen(self._skeleton.get_submodule(head))
        self._check_forward(in_shape)

    def module(self) -> nn.Module:
        """Return the smaller network on the CPU: (N, C, H, W) -> (N, classes, + 1 with an "other" row).

        Its parameters are zeros until ``load_state_dict(submodel.take(theta))``.
        """
        model = copy.deepcopy(self._skeleton).to_empty(device="cpu")
        for value in model.state_dict().values():
            value.zero_()
        for name, constant in self._constants.items():
            model.get_buffer(name).copy_(constant)
        return model

    def zeros(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return zeros of the shapes of its ``state_dict``; floating-point tensors are of this type.

        The operating system provides pages only where they are written, so a large model stays small.
        """
        return {
            name: torch.from_numpy(np.zeros(value.shape, torch.empty(0, dtype=own).numpy().dtype))
            for name, value in self._skeleton.state_dict().items()
            for own in [dtype if value.is_floating_point() else value.dtype]
        }

    def take(self, params: Params) -> dict[str, Tensor]:
        """Return the sub-model's slices of the global parameters; an "other" row starts as zeros."""
        taken = {}
        for name, value in params.items():
            for dim, runs in enumerate(self._spans[name]):
                if runs != ((0, value.shape[dim]),):
                    pieces = [value.narrow(dim, start, stop - start) for start, stop in runs]
                    value = torch.cat(pieces, dim)  # a copy: no view keeps the whole tensor in memory
            taken[name] = value
        if self.cut.other:
            for name in self._head_tensors(taken):
                taken[name] = torch.cat([taken[name], torch.zeros_like(taken[name][:1])])
        return taken

    def fold_other(self, params: Params) -> dict[str, Tensor]:
        """Return the parameters without the "other" row, which is subtracted from the row of each class.

        The logits become z_c - z_other: how much more likely class c is than none of the sub-model's
        classes. This makes the logits of sub-models that were trained on different classes comparable.
        """
        folded = dict(params)
        for name in self._head_tensors(params):
            folded[name] = params[name][:-1] - params[name][-1:]
        return folded

    def runs(self, name: str) -> tuple[Runs, ...]:
        """Return the indices that the sub-model holds along each dimension of one tensor."""
        return self._spans[name]

    def blocks(self, name: str) -> list[Block]:
        """Return the blocks that the sub-model holds of one tensor: indices in the whole, and in its own."""
        return list(_blocks(self._spans[name]))

    def add_weight(
        self, name: str, count: float | Tensor, shape: Sequence[int], weight: float
    ) -> float | Tensor:
        """Return ``count`` plus ``weight`` for the coordinates of one tensor that the sub-model holds.

        Args:
            count: the weight gathered so far: one number, or float64 broadcast to the shape, which may
                be changed in place.
            shape: of the whole tensor.
        """
        spans = self._spans[name]
        partial = [runs != ((0, n),) for runs, n in zip(spans, shape, strict=True)]
        if isinstance(count, float):
            if not any(partial):
                return count + weight
            count = torch.full([1] * len(shape), count, dtype=torch.float64)
        size = [n if cut else had for n, cut, had in zip(shape, partial, count.shape, strict=True)]
        count = count if list(count.shape) == size else count.expand(size).clone()
        for inside, _ in _blocks(
            [((0, 1),) if n == 1 else runs for runs, n in zip(spans, size, strict=True)]
        ):
            count[inside].add_(weight)
        return count

    def place(self, whole: Mapping[str, Tensor], params: Params) -> None:
        """Write the sub-model's parameters into a whole state, in place; the rest of it stays as it is."""
        for name, value in whole.items():
            for inside, own in self.blocks(name):
                value[inside] = params[name][own]

    def _check_forward(self, in_shape: tuple[int, int, int]) -> None:
        blank = torch.zeros(2, *in_shape)
        try:
            _forward(copy.deepcopy(self._skeleton), blank.to("meta"))
        except CutError:
            _forward(self.module(), blank)  # the model may read values, which meta tensors do not have

    def _head_tensors(self, params: Params) -> list[str]:
        return [name for name in (f"{self._head}.weight", f"{self._head}.bias") if name in params]


def _widen(head: nn.Module) -> None:
    """Add an output to a linear layer on the meta device."""
    if isinstance(head, nn.Linear):
        head.out_features += 1
        for name, value in list(head.named_parameters()):
            wider = torch.empty(len(value) + 1, *value.shape[1:], dtype=value.dtype, device="meta")
            head.register_parameter(name, nn.Parameter(wider, value.requires_grad))


def _forward(model: nn.Module, x: Tensor) -> None:
    """Run a forward pass.

    Raises:
        CutError: it fails; names the layer.
    """
    entered = ["the model"]
    for name, layer in model.named_modules():
        layer.register_forward_pre_hook(lambda *_, name=name: entered.append(name))
    try:
        with torch.no_grad():
            model.eval()(x)
    except Exception as error:  # a user's model raises errors of any type
        raise CutError(f"the sub-model does not run, at {entered[-1]}: {first_line(error)}") from error


def _blocks(spans: Sequence[Runs]) -> Iterator[Block]:
    """Yield the blocks of an outer product of runs: indices in the whole tensor, and in the sub-model's."""
    pairs = []
    for runs in spans:
        at, slices = 0, []
        for start, stop in runs:
            slices.append((slice(start, stop), slice(at, at + stop - start)))
            at += stop - start
        pairs.append(slices)
    for block in product(*pairs):
        yield tuple(inside for inside, _ in block), tuple(own for _, own in block)
