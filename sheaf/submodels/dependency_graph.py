"""Trace a model: find its groups of coupled channels and its classifier.

The dependency graph comes from autograd's graph of one forward pass on the meta device, which computes shapes
only. Torch-Pruning assumes that an operation which it does not know leaves channels in their places; a check
on random numbers then finds the cases where that is wrong.

DepGraph: Towards Any Structural Pruning. Fang, Ma, Song, Mi, Wang. CVPR 2023. arXiv:2301.12900
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from math import lcm
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from sheaf.core.errors import CutError, first_line
from sheaf.models.flops import copy_to
from sheaf.submodels.binding_check import check_among_zeros
from sheaf.submodels.pruning import CONVOLUTIONS, MAKERS, PRUNABLE, Couplings, blocks_of
from sheaf.submodels.structure import Channel, ChannelGroup, ChannelStructure, Port

TORCH_PRUNING = str(Path(torch_pruning.__file__).parent)

INPUTS = "(the inputs)"
"""The name of the layer in front of the model; no layer of a model can have that name."""

# fmt: off
HARMLESS = frozenset({
    "Relu", "Hardtanh", "LeakyRelu", "Elu", "Silu", "Gelu", "Sigmoid", "Tanh", "Hardswish",
    "Hardsigmoid", "Softplus", "Mish", "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Exp", "Abs", "Clamp",
    "MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "Mean", "Clone",
    "ConstantPadNd", "ReflectionPad2D", "UpsampleNearest2D", "UpsampleBilinear2D", "Squeeze", "View",
    "UnsafeView", "ReshapeAlias", "Cat", "Addmm", "T", "Alias", "Expand", "ClampMin",
})
# fmt: on
"""Operations that treat every channel alike and independently; error messages do not blame them."""


def trace(model: nn.Module, in_shape: tuple[int, int, int]) -> ChannelStructure:
    """Return the structure of a model that maps (N, C, H, W) to (N, K) logits. The model stays unchanged.

    Raises:
        CutError: the model cannot be traced or cut; names the operation or the layer.
    """
    _refuse(model)
    try:
        couplings, names, order = _trace_on(torch.device("meta"), model, in_shape)
    except CutError:
        # A user's model may hold tensors of its own or read values, which needs a real device.
        couplings, names, order = _trace_on(torch.device("cpu"), model, in_shape)
    try:
        structure = _structure(couplings, names, order, model, in_shape)
        structure.mixers = _mixers(couplings, model)
        check_among_zeros(structure)
    except CutError as error:
        suspects = ", ".join(sorted(couplings.operations() - HARMLESS))
        hint = f"; it uses {suspects}, which may not leave channels in their places" if suspects else ""
        raise CutError(f"the model cannot be cut: {error}{hint}") from error
    return structure


def _mixers(couplings: Couplings, model: nn.Module) -> tuple[str, ...]:
    """Return the kinds of layers and operations that may mix the channels of several sub-models."""
    normalises = any(isinstance(layer, nn.GroupNorm) for layer in model.modules())
    return (*(["GroupNorm"] if normalises else []), *sorted(couplings.operations() - HARMLESS))


def _refuse(model: nn.Module) -> None:
    """Check for models that would be cut wrongly: tied weights, computed weights, unknown layers.

    Raises:
        CutError: the model has such parameters, or is a single layer.
    """
    if isinstance(model, PRUNABLE):
        raise CutError(f"a model of a single layer ({type(model).__name__}) cannot be cut")
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            raise CutError(f"{first[id(parameter)]} and {name} are one parameter; tied weights cannot be cut")
        first[id(parameter)] = name
    for name, layer in model.named_modules():
        if isinstance(layer, PRUNABLE) and layer._parameters and "weight" not in layer._parameters:
            own = ", ".join(sorted({*layer._parameters, *layer._buffers} - {"bias"}))
            raise CutError(
                f"{name or 'the model'} ({type(layer).__name__}) computes its weight from {own} and cannot "
                "be cut; make the weight permanent first (torch.nn.utils.remove_weight_norm, "
                "remove_spectral_norm, prune.remove)"
            )
        if any(p.numel() > 1 for p in layer.parameters(recurse=False)) and not isinstance(layer, PRUNABLE):
            known = ", ".join(kind.__name__.strip("_") for kind in PRUNABLE)
            raise CutError(
                f"{name or 'the model'} ({type(layer).__name__}) has parameters and cannot be cut; "
                f"layers that can: {known}"
            )


class _Probe(nn.Module):
    """The model behind a 1x1 convolution in place of its inputs, which shows the channels coupled to them."""

    def __init__(self, model: nn.Module, in_channels: int, device: torch.device) -> None:
        super().__init__()
        self.inputs = nn.Conv2d(in_channels, in_channels, 1, device="meta").to_empty(device=device)
        for parameter in self.inputs.parameters():
            nn.init.ones_(parameter)
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(self.inputs(x))


def _trace_on(
    device: torch.device, model: nn.Module, in_shape: tuple[int, int, int]
) -> tuple[Couplings, dict[nn.Module, str], dict[nn.Module, str]]:
    """Return the couplings, the names of all layers, and those that make channels in forward order.

    Raises:
        CutError: the model does not run on this device, or Torch-Pruning cannot trace it.
    """
    probe = _Probe(copy_to(device, model), in_shape[0], device).eval()
    x = torch.zeros(2, *in_shape, device=device)
    names = {layer: _own_name(name) for name, layer in probe.named_modules()}
    order: dict[nn.Module, str] = {}

    def enter(layer: nn.Module, _: Any) -> None:
        order.setdefault(layer, names[layer])

    for layer in names:
        if isinstance(layer, MAKERS):
            layer.register_forward_pre_hook(enter)
    try:
        with torch.enable_grad():
            couplings = Couplings(probe.requires_grad_(), x)
    except Exception as error:  # a user's model, and Torch-Pruning, raise errors of any type
        reason = first_line(error)
        if traceback.extract_tb(error.__traceback__)[-1].filename.startswith(TORCH_PRUNING):
            reason = (
                f"Torch-Pruning cannot follow its channels ({type(error).__name__}: {reason}); a shuffle or "
                "a split of channels cannot be cut"
            )
        raise CutError(f"the model cannot be traced: {reason}") from error
    return couplings, names, order


def _own_name(name: str) -> str:
    """Return a layer's name in the model, from its name in the probe."""
    return name.removeprefix("model.") if name.startswith("model.") else INPUTS


def _structure(
    couplings: Couplings,
    names: Mapping[nn.Module, str],
    order: Mapping[nn.Module, str],
    model: nn.Module,
    in_shape: tuple[int, int, int],
) -> ChannelStructure:
    """Read the groups off the graph, one layer after another, each channel once.

    Args:
        names: the names of all layers.
        order: the names of the layers that make channels, in the order of the forward pass.
    """
    seen: dict[str, set[int]] = {name: set() for name in order.values()}
    ports: dict[Port, list[Channel | None]] = {}
    groups: list[ChannelGroup] = []
    classifier: ChannelGroup | None = None
    for root, root_name in order.items():
        channels = [c for c in range(couplings.out_channels(root)) if c not in seen[root_name]]
        if root not in couplings or not channels:
            continue
        number = {channel: position for position, channel in enumerate(channels)}
        makers, blocks, makes_output = set(), 1, False
        for end in couplings.of(root, channels):
            makes_output |= end.output
            if not isinstance(end.layer, PRUNABLE):
                continue
            name = names[end.layer]
            if end.side == "out" and isinstance(end.layer, MAKERS):
                seen[name].update(end.positions)
                makers.add(name)
            blocks = lcm(blocks, blocks_of(end.layer))
            if root_name == INPUTS or end.width is None:
                continue
            port = ports.setdefault((name, end.side), [None] * end.width)
            if end.positions and max(end.positions) >= end.width:
                raise CutError(f"{name} does not take the channels of {root_name} as they are made")
            for position, channel in zip(end.positions, end.roots, strict=True):
                port[position] = (root_name, number[channel])
        if root_name == INPUTS:
            continue
        # Blocks that do not divide the width (after a concatenation) leave nothing to choose.
        blocks = blocks if len(channels) % blocks == 0 else len(channels)
        layers = tuple(name for name in order.values() if name in makers)
        group = ChannelGroup(root_name, len(channels), blocks, layers)
        if makes_output:
            classifier = group
        else:
            groups.append(group)
    if classifier is None or classifier.blocks != 1:
        raise CutError("its outputs are not made, class by class, by one of its layers")
    convolutions = [
        name for layer, name in order.items() if isinstance(layer, CONVOLUTIONS) and name != INPUTS
    ]
    return ChannelStructure(model, in_shape, groups, classifier, convolutions, ports)
