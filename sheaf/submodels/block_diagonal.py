"""The weights of a model bound from sub-models: blocks in each matrix, and zeros between them.

A model that is bound from G sub-models without common channels has G blocks in the weight of each layer
behind the stem, each 1/G^2 of it. The functions here send only the blocks and multiply only by them, so bytes
and multiply-adds of these layers are 1/G of those of the dense model, and the results are the same up to
rounding. The stem, and layers whose inputs are the stem's outputs, are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sheaf.core.cut import Runs
from sheaf.core.types import Params
from sheaf.submodels.runs import length_of, runs_of
from sheaf.submodels.submodel import SubModel

BLOCK = " block "
"""Separates the name of a weight from the number of a block, in the names of packed parameters."""


class WeightBlock(NamedTuple):
    """Rows of a weight, and the only columns in which they are not zero.

    Attributes:
        rows: output channels.
        columns: input channels.
    """

    rows: Runs
    columns: Runs


class BlockDiagonal:
    """The blocks of a model that is bound from sub-models (``merges.average`` with ``unheld="zero"``).

    Only linear layers and convolutions of one group are divided into blocks. Every other tensor stays whole:
    it has few parameters, or its zeros are no whole blocks.

    Args:
        model: the whole model; only names, types and shapes are used.
        submodels: the sub-models, which may have channels in common.

    Attributes:
        blocks: weight -> its blocks, for each weight that has zeros between them.
    """

    def __init__(self, model: nn.Module, submodels: Sequence[SubModel]) -> None:
        self.blocks: dict[str, tuple[WeightBlock, ...]] = {}
        for layer_name, layer in model.named_modules():
            if not _is_divisible(layer):
                continue
            name = f"{layer_name}.weight" if layer_name else "weight"
            blocks = _blocks_of([submodel.runs(name)[:2] for submodel in submodels])
            rows, columns = layer.weight.shape[:2]
            if sum(length_of(each.rows) * length_of(each.columns) for each in blocks) < rows * columns:
                self.blocks[name] = blocks

    def pack(self, params: Params) -> dict[str, Tensor]:
        """Return the parameters with a tensor for each block in place of a weight with zeros.

        Meta tensors give the shapes.

        Raises:
            ValueError: a weight is not zero between its blocks.
        """
        packed = {name: value for name, value in params.items() if name not in self.blocks}
        for name, blocks in self.blocks.items():
            value = params[name]
            pieces = [_part(_part(value, 0, each.rows), 1, each.columns) for each in blocks]
            if not value.is_meta and sum(map(torch.count_nonzero, pieces)) != torch.count_nonzero(value):
                raise ValueError(
                    f"{name} is not bound from these sub-models: it is not 0 between their blocks"
                )
            for number, piece in enumerate(pieces):  # copies: no view keeps the whole tensor in memory
                packed[f"{name}{BLOCK}{number}"] = piece.clone(memory_format=torch.contiguous_format)
        return packed

    def unpack(self, packed: Params, shapes: Params) -> dict[str, Tensor]:
        """Return the parameters of these shapes that ``pack`` was given.

        Raises:
            ValueError: a block is missing or has another shape.
        """
        params = {name: value for name, value in packed.items() if BLOCK not in name}
        for name, blocks in self.blocks.items():
            value = torch.zeros(shapes[name].shape, dtype=shapes[name].dtype)
            for number, (rows, columns) in enumerate(blocks):
                key, size = f"{name}{BLOCK}{number}", (length_of(rows), length_of(columns), *value.shape[2:])
                if key not in packed or packed[key].shape != size:
                    raise ValueError(f"the packed model has no tensor {key!r} of shape {size}")
                _write(value, rows, columns, packed[key])
            params[name] = value
        return params

    @contextmanager
    def multiplied(self, model: nn.Module) -> Iterator[None]:
        """Let the layers of a bound model multiply only by their blocks inside the ``with``.

        A layer whose weight the model uses in another way than by calling the layer multiplies by zeros, too.
        """
        layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in self.blocks}
        try:
            for name, layer in layers.items():
                # A bound method, so that a copy of the model computes with the copy's weights.
                layer.forward = MethodType(_Product(self.blocks[name]), layer)
            yield
        finally:
            for layer in layers.values():
                vars(layer).pop("forward", None)


class _Product:
    """The forward pass of a layer whose weight consists of blocks.

    Args:
        blocks: of the layer's weight.
    """

    def __init__(self, blocks: Sequence[WeightBlock]) -> None:
        self._blocks = blocks

    def __call__(self, layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
        """Return the outputs of a linear layer or a convolution."""
        weight, bias = layer.weight, layer.bias
        dim = -1 if isinstance(layer, nn.Linear) else -3
        output: Tensor | None = None
        for rows, columns in self._blocks:
            part = _part(_part(weight, 0, rows), 1, columns)
            inputs = _part(x, dim, columns)
            own = None if bias is None else _part(bias, 0, rows)
            values = _product(layer, inputs, part, own)
            if output is None:
                output = self._outputs(values, dim, len(weight), bias)
            at = 0
            for start, stop in rows:
                output.narrow(dim, start, stop - start).copy_(values.narrow(dim, at, stop - start))
                at += stop - start
        assert output is not None
        return output

    def _outputs(self, values: Tensor, dim: int, channels: int, bias: Tensor | None) -> Tensor:
        """Return a tensor for all output channels; those without inputs have their bias already."""
        shape = list(values.shape)
        shape[dim] = channels
        if self._covers(channels):
            return values.new_empty(shape)
        if bias is None:
            return values.new_zeros(shape)
        return bias.to(values.dtype).view(-1, *[1] * (-1 - dim)).expand(shape).clone()

    def _covers(self, channels: int) -> bool:
        return sum(length_of(each.rows) for each in self._blocks) == channels


def _product(layer: nn.Linear | nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)
    return F.linear(x, weight, bias)


def _is_divisible(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Return whether the forward pass of a layer is that of torch's own class, with one matrix."""
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear


def _blocks_of(spans: Sequence[tuple[Runs, ...]]) -> tuple[WeightBlock, ...]:
    """Return the blocks of a weight of which each sub-model holds these rows and columns.

    A row that several sub-models hold has the columns of all of them.
    """
    columns_of: dict[int, list[int]] = {}  # row -> the sub-models that hold it
    for number, (rows, _) in enumerate(spans):
        for start, stop in rows:
            for row in range(start, stop):
                columns_of.setdefault(row, []).append(number)
    rows_of: dict[Runs, list[int]] = {}
    known: dict[tuple[int, ...], Runs] = {}
    for row in sorted(columns_of):
        holders = tuple(columns_of[row])
        if holders not in known:
            known[holders] = _union([spans[number][1] for number in holders])
        rows_of.setdefault(known[holders], []).append(row)
    return tuple(WeightBlock(runs_of(rows), columns) for columns, rows in rows_of.items())


def _union(several: Sequence[Runs]) -> Runs:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(run for runs in several for run in runs):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)


def _part(value: Tensor, dim: int, runs: Runs) -> Tensor:
    """Return the entries at ``runs`` of one dimension: a view if it is one run."""
    pieces = [value.narrow(dim, start, stop - start) for start, stop in runs]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def _write(value: Tensor, rows: Runs, columns: Runs, block: Tensor) -> None:
    at = 0
    for start, stop in rows:
        inner = 0
        for left, right in columns:
            value[start:stop, left:right] = block[at : at + stop - start, inner : inner + right - left]
            inner += right - left
        at += stop - start
