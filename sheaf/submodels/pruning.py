"""The only module that uses Torch-Pruning: coupled channels, and layers with channels removed.

It relies on these undocumented parts of the library; ``tests/submodels/test_pruning.py`` checks each of them:

- ``PrunerBox``, keyed by ``ops.module2type(layer)``, holds a pruner with ``prune_out_channels`` and
  ``prune_in_channels``, which shorten all tensors of a layer in place.
- ``DependencyGraph.module2node`` starts with the operation that makes the model's outputs.
- An operation without parameters is a node whose module is a class of ``torch_pruning.ops``; its ``grad_fn``
  names the operation.
- An item of a pruning group has ``dep.target``, ``dep.handler``, ``idxs`` and ``root_idxs``.

DepGraph: Towards Any Structural Pruning. Fang, Ma, Song, Mi, Wang. CVPR 2023. arXiv:2301.12900
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph, ops
from torch_pruning.pruner.function import PrunerBox

from sheaf.core.cut import Runs
from sheaf.core.errors import CutError, first_line
from sheaf.submodels.runs import runs_of

Side = Literal["out", "in"]
"""The channels that a layer makes (out) or takes (in)."""

CONVOLUTIONS = ops.TORCH_CONV

MAKERS = (ops.TORCH_CONV, ops.TORCH_LINEAR)
"""The layers whose outputs are new channels."""

PRUNABLE = (
    *MAKERS,
    ops.TORCH_BATCHNORM,
    ops.TORCH_INSTANCENORM,
    ops.TORCH_GROUPNORM,
    ops.TORCH_PRELU,
)
"""The layers with parameters from which channels can be removed."""


@dataclass(frozen=True)
class Coupled:
    """One end of a coupling: channels that a layer makes or takes.

    Attributes:
        layer: a layer of the model, or an operation without parameters.
        side: whether the layer makes or takes the channels.
        width: the number of channels on that side; None for an operation.
        positions: the coupled channels among these.
        roots: for each of them, the channel of the layer from which the search started.
        output: whether these channels are the model's outputs.
    """

    layer: nn.Module
    side: Side
    width: int | None
    positions: Sequence[int]
    roots: Sequence[int]
    output: bool


class Couplings:
    """The coupled channels of a model, from autograd's graph of one forward pass.

    Args:
        model: any network; all of its parameters must require gradients.
        x: its inputs.

    Raises:
        Exception: any error of the model or of Torch-Pruning.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._graph = DependencyGraph().build_dependency(
            model, x, forward_fn=lambda model, x: model(x), verbose=False
        )
        self._output = next(iter(self._graph.module2node.values()))

    def __contains__(self, layer: nn.Module) -> bool:
        """Return whether the outputs depend on the layer."""
        return layer in self._graph.module2node

    def out_channels(self, layer: nn.Module) -> int:
        """Return the number of channels that a layer makes."""
        return int(self._graph.get_pruner_of_module(layer).get_out_channels(layer))

    def of(self, layer: nn.Module, channels: Sequence[int]) -> Iterator[Coupled]:
        """Yield the layers that make or take these output channels of ``layer``."""
        pruner = self._graph.get_pruner_of_module(layer)
        for item in self._graph.get_pruning_group(layer, pruner.prune_out_channels, channels):
            node = item.dep.target
            own = self._graph.get_pruner_of_module(node.module)
            out = item.dep.handler == own.prune_out_channels
            known = isinstance(node.module, PRUNABLE)
            width = (own.get_out_channels if out else own.get_in_channels)(node.module) if known else None
            yield Coupled(
                layer=node.module,
                side="out" if out else "in",
                width=width,
                positions=item.idxs,
                roots=item.root_idxs,
                output=node is self._output and out,
            )

    def operations(self) -> set[str]:
        """Return autograd's names of the operations without parameters."""
        return {
            node.grad_fn.name().partition("Backward")[0]
            for node in self._graph.module2node.values()
            if type(node.module).__module__ == ops.__name__ and hasattr(node.grad_fn, "name")
        }


def blocks_of(layer: nn.Module) -> int:
    """Return the number of equal blocks in which a layer must keep the same positions."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    if isinstance(layer, CONVOLUTIONS) and ops.module2type(layer) == ops.OPTYPE.CONV:
        return int(layer.groups)
    return 1


@dataclass(frozen=True)
class Removed:
    """The channels that a layer loses.

    Attributes:
        outs: indices of its output channels to remove.
        ins: indices of its input channels to remove.
    """

    outs: list[int]
    ins: list[int]


def prune(layer: nn.Module, removed: Removed) -> None:
    """Remove channels from a layer, in place.

    Raises:
        CutError: the layer cannot lose them.
    """
    pruner = PrunerBox[ops.module2type(layer)]
    try:
        if removed.outs:
            pruner.prune_out_channels(layer, removed.outs)
        if removed.ins:
            pruner.prune_in_channels(layer, removed.ins)
    except Exception as error:  # Torch-Pruning raises errors of any type
        raise CutError(
            f"a {type(layer).__name__} cannot lose the channels outside the cut: {first_line(error)}"
        ) from error


def remaining(layer: nn.Module, pruned: nn.Module, removed: Removed) -> dict[str, tuple[Runs, ...]]:
    """Return, for each tensor of a layer, the indices that pruning has kept of each dimension.

    Read off instead of derived, so that no layer type has code of its own: for each dimension that pruning
    shortens, every entry of the tensor is set to its index along that dimension (a stretched view, so it
    takes no memory), and a copy of the layer is pruned. The entries left are the indices kept.

    Raises:
        CutError: pruning does not keep whole slices of a tensor, or leaves none.
    """
    old = {name: value.shape for name, value in layer.state_dict().items()}
    new = {name: value.shape for name, value in pruned.state_dict().items()}
    spans: dict[str, list[Runs]] = {name: [((0, n),) for n in size] for name, size in old.items()}
    for dim in range(max(map(len, old.values()), default=0)):  # a layer may have no tensors
        shorter = [name for name in old if len(old[name]) > dim and old[name][dim] != new[name][dim]]
        if not shorter:
            continue
        probe = copy.deepcopy(layer)
        for name in shorter:
            size = old[name]
            shape = [n if d == dim else 1 for d, n in enumerate(size)]
            ruler = torch.arange(size[dim], dtype=torch.float64).view(shape).expand(size)
            if name in probe._parameters:
                probe._parameters[name] = nn.Parameter(ruler, requires_grad=False)
            else:
                probe._buffers[name] = ruler
        prune(probe, removed)
        for name in shorter:
            left = probe.state_dict()[name].movedim(dim, 0)
            if not left.numel():
                raise CutError(f"a {type(layer).__name__} would lose all of its channels")
            indices = left.reshape(len(left), -1)[:, 0]
            if not torch.equal(left, indices.view(-1, *[1] * (left.dim() - 1)).expand_as(left)):
                raise CutError(f"{name} of a {type(layer).__name__} is not cut along its dimensions")
            spans[name][dim] = runs_of(map(int, indices.tolist()))
    return {name: tuple(runs) for name, runs in spans.items()}


def check_grouped(name: str, layer: nn.Module, removed: Removed) -> None:
    """Check that a grouped convolution loses the same positions in each group: they share one weight.

    Raises:
        CutError: the positions differ.
    """
    depthwise = ops.module2type(layer) == ops.OPTYPE.DEPTHWISE_CONV
    if not isinstance(layer, CONVOLUTIONS) or layer.groups == 1 or depthwise:
        return
    for lost, width in ((removed.outs, layer.out_channels), (removed.ins, layer.in_channels)):
        block = width // layer.groups
        if set(lost) != {start + i % block for start in range(0, width, block) for i in lost}:
            raise CutError(
                f"{name}, a convolution of {layer.groups} groups, would lose different channels in each"
            )
