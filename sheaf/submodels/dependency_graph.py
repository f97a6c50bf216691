"""Finds what can be cut of a model: its groups of coupled channels, and its classifier.

DepGraph: Towards Any Structural Pruning. Fang, Ma, Song, Mi, Wang. CVPR 2023. arXiv:2301.12900

The graph is autograd's of one forward pass on the meta device, where shapes are computed and numbers are
not. Operations that Torch-Pruning does not know it takes to leave channels where they are; whether that
was right is then checked on numbers.
"""

from __future__ import annotations

import random
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph, ops

from sheaf.core.errors import CutError, first_line
from sheaf.models.flops import copy_to
from sheaf.submodels.cut import Channel, ChannelGroup, ChannelStructure, LayerSide, SubModel

UNDERSTOOD = (
    ops.TORCH_CONV,
    ops.TORCH_LINEAR,
    ops.TORCH_BATCHNORM,
    ops.TORCH_INSTANCENORM,
    ops.TORCH_GROUPNORM,
    ops.TORCH_PRELU,
)
"""The layers with parameters that can be cut."""

INPUTS = "(the inputs)"
"""Stands for a layer that makes the inputs; no layer of a model can have that name."""

MAKERS = (ops.TORCH_CONV, ops.TORCH_LINEAR)

# fmt: off
HARMLESS = frozenset({
    "Relu", "Hardtanh", "LeakyRelu", "Elu", "Silu", "Gelu", "Sigmoid", "Tanh", "Hardswish",
    "Hardsigmoid", "Softplus", "Mish", "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Exp", "Abs", "Clamp",
    "MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "Mean", "Clone",
    "ConstantPadNd", "ReflectionPad2D", "UpsampleNearest2D", "UpsampleBilinear2D", "Squeeze", "View",
    "UnsafeView", "ReshapeAlias", "Cat", "Addmm", "T", "Alias",
})
# fmt: on
"""Operations that treat every channel alike and by itself; no failure is put down to them."""


def trace(model: nn.Module, in_shape: tuple[int, int, int]) -> ChannelStructure:
    """The structure of a model that turns (N, C, H, W) into (N, K) logits. The model is left as it is.

    Raises:
        CutError: the model cannot be traced or cut; names the operation or the layer.
    """
    _refuse(model)
    try:
        graph, order = _graph(torch.device("meta"), model, in_shape)
    except CutError:
        # A user's model may hold tensors of its own or look at values; numbers then have to be.
        graph, order = _graph(torch.device("cpu"), model, in_shape)
    try:
        structure = _structure(graph, order, model, in_shape)
        _check_on_numbers(structure)
    except CutError as error:
        suspects = ", ".join(_suspects(graph))
        hint = f"; it uses {suspects}, which may not leave channels in their places" if suspects else ""
        raise CutError(f"the model cannot be cut: {error}{hint}") from error
    return structure


def _refuse(model: nn.Module) -> None:
    """Refuses what would be cut wrongly: tied weights, and parameters of layers that are not understood."""
    if isinstance(model, UNDERSTOOD):
        raise CutError(f"a model of a single layer ({type(model).__name__}) cannot be cut")
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            raise CutError(f"{first[id(parameter)]} and {name} are one parameter; tied weights cannot be cut")
        first[id(parameter)] = name
    for name, layer in model.named_modules():
        if any(p.numel() > 1 for p in layer.parameters(recurse=False)) and not isinstance(layer, UNDERSTOOD):
            known = ", ".join(kind.__name__.strip("_") for kind in UNDERSTOOD)
            raise CutError(
                f"{name or 'the model'} ({type(layer).__name__}) has parameters and cannot be cut; "
                f"layers that can: {known}"
            )


class _Probe(nn.Module):
    """The model behind a layer that stands for its inputs, so that what is coupled to them shows."""

    def __init__(self, model: nn.Module, in_channels: int, device: torch.device) -> None:
        super().__init__()
        self.inputs = nn.Conv2d(in_channels, in_channels, 1, device="meta").to_empty(device=device)
        for parameter in self.inputs.parameters():
            nn.init.ones_(parameter)
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(self.inputs(x))


def _graph(
    device: torch.device, model: nn.Module, in_shape: tuple[int, int, int]
) -> tuple[Any, list[tuple[str, nn.Module]]]:
    """The dependency graph, and the layers that make channels in the order of the forward pass.

    Raises:
        CutError: the model does not run on this device, or Torch-Pruning cannot trace it.
    """
    probe = _Probe(copy_to(device, model), in_shape[0], device).eval()
    x = torch.zeros(2, *in_shape, device=device)
    names = {layer: name for name, layer in probe.named_modules() if isinstance(layer, MAKERS)}
    order: dict[nn.Module, str] = {}

    def reached(layer: nn.Module, _: Any) -> None:
        order.setdefault(layer, names[layer])

    for layer in names:
        layer.register_forward_pre_hook(reached)
    try:
        with torch.enable_grad():
            graph = DependencyGraph().build_dependency(
                probe.requires_grad_(), x, forward_fn=lambda model, x: model(x), verbose=False
            )
    except Exception as error:  # whatever the model or Torch-Pruning trips over
        raise CutError(f"the model cannot be traced: {first_line(error)}") from error
    return graph, [(_own_name(name), layer) for layer, name in order.items()]


def _own_name(name: str) -> str:
    """A layer's name in the model, from its name in the probe."""
    return name.removeprefix("model.") if name.startswith("model.") else INPUTS


def _structure(
    graph: Any, order: list[tuple[str, nn.Module]], model: nn.Module, in_shape: tuple[int, int, int]
) -> ChannelStructure:
    """Reads the groups off the graph, one layer after the other, each channel once."""
    names = {layer: _own_name(name) for name, layer in graph.model.named_modules()}
    output = next(iter(graph.module2node.values()))
    makers = dict(order)
    seen: dict[str, set[int]] = {name: set() for name in makers}
    ports: dict[LayerSide, list[Channel | None]] = {}
    groups: list[ChannelGroup] = []
    classifier: ChannelGroup | None = None
    for root_name, root in order:
        pruner = graph.get_pruner_of_module(root)
        channels = [c for c in range(pruner.get_out_channels(root)) if c not in seen[root_name]]
        if root not in graph.module2node or not channels:
            continue
        number = {channel: position for position, channel in enumerate(channels)}
        layers, blocks, makes_output = set(), 1, False
        for item in graph.get_pruning_group(root, pruner.prune_out_channels, channels):
            node, layer = item.dep.target, item.dep.target.module
            own = graph.get_pruner_of_module(layer)
            out = item.dep.handler == own.prune_out_channels
            makes_output |= node is output and out
            if not isinstance(layer, UNDERSTOOD):
                continue
            name = names[layer]
            if out and isinstance(layer, MAKERS):
                seen[name].update(item.idxs)
                layers.add(name)
            blocks = lcm(blocks, _runs_of_its_own(layer))
            width = own.get_out_channels(layer) if out else own.get_in_channels(layer)
            if root_name != INPUTS and width is not None:
                port = ports.setdefault((name, "out" if out else "in"), [None] * width)
                if item.idxs and max(item.idxs) >= width:
                    raise CutError(f"{name} does not take the channels of {root_name} as they are made")
                for position, channel in zip(item.idxs, item.root_idxs, strict=True):
                    port[position] = (root_name, number[channel])
        if root_name == INPUTS:
            continue
        # Runs that do not fit the width (after a concatenation) leave nothing to choose.
        blocks = blocks if len(channels) % blocks == 0 else len(channels)
        group = ChannelGroup(
            root_name, len(channels), blocks, tuple(name for name in makers if name in layers)
        )
        if makes_output:
            classifier = group
        else:
            groups.append(group)
    if classifier is None or classifier.blocks != 1:
        raise CutError("its outputs are not made, class by class, by one of its layers")
    convolutions = [name for name, layer in order if isinstance(layer, ops.TORCH_CONV) and name != INPUTS]
    return ChannelStructure(model, in_shape, groups, classifier, convolutions, ports)


def _runs_of_its_own(layer: nn.Module) -> int:
    """In how many equal runs a layer's channels have to be kept."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    if isinstance(layer, ops.TORCH_CONV) and ops.module2type(layer) == ops.OPTYPE.CONV:
        return int(layer.groups)
    return 1


def _suspects(graph: Any) -> list[str]:
    """Operations that Torch-Pruning may have understood wrongly, for a message."""
    found = {
        node.grad_fn.name().partition("Backward")[0]
        for node in graph.module2node.values()
        if type(node.module).__module__ == ops.__name__ and hasattr(node.grad_fn, "name")
    }
    return sorted(found - HARMLESS)


def _check_on_numbers(structure: ChannelStructure) -> None:
    """Cuts a part at random from every group: among zeros it must give the logits it gives by itself.

    In the whole model the part's channels take nothing from the others, whose weights to them are zeros;
    so an operation that mixes or moves channels in a way that the graph does not show comes to light.
    ChannelGroup normalisation does mix a group's channels, and openly: it is left out of the comparison.

    Raises:
        CutError: the two disagree.
    """
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    kept = {group.name: group.channels(_some(group.units, draw)) for group in structure.groups}
    part = structure.submodel(structure.cut(kept, _some(structure.num_classes, draw)))
    whole = structure.submodel(structure.cut())
    x = torch.randn(4, *structure.in_shape, generator=generator)
    params = _random_params(part, generator)
    among_zeros = whole.module()
    part.place(among_zeros.state_dict(), params)
    inside = _logits(among_zeros, x)[:, list(part.classes)]
    del among_zeros
    alone_model = part.module()
    alone_model.load_state_dict(params, assign=True)
    alone = _logits(alone_model, x)
    off = (inside - alone).abs().max() / (alone - alone.mean(0)).std()
    if not off < 1e-2:
        raise CutError(f"a part's logits are off by {off:.1g} of their spread among zeros")


def _some(count: int, draw: random.Random) -> list[int]:
    """A window over a third to a half of ``range(count)``, at random: uncoupled groups will not agree."""
    start, length = draw.randrange(count), draw.randint(max(1, count // 3), max(1, count // 2))
    return [(start + step) % count for step in range(length)]


def _random_params(part: SubModel, generator: torch.Generator) -> dict[str, Tensor]:
    """Numbers that keep signals of one size from layer to layer, and statistics that are no identity."""
    params = {}
    for name, value in part.module().state_dict().items():
        if not value.is_floating_point():
            params[name] = value
        elif value.dim() > 1:
            fan_in = prod(value.shape[1:])
            params[name] = torch.randn(value.shape, generator=generator).mul_((2 / fan_in) ** 0.5)
        elif name.endswith(("running_var", "weight")):
            params[name] = torch.rand(value.shape, generator=generator).add_(0.5)
        else:
            params[name] = torch.randn(value.shape, generator=generator).mul_(0.1)
    return params


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    for layer in model.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.register_forward_hook(lambda _, inputs, __: inputs[0])
    with torch.no_grad():
        logits: Tensor = model.eval()(x)
    return logits
