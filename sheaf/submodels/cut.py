"""Cuts: which part of the global model a site holds, how it is taken out and put back.

A model's layers are coupled: the channels that one makes, the next ones take, and a residual sum ties the
channels of two. Torch-Pruning's dependency graph finds the groups of coupled channels, by following
autograd's graph of one forward pass. A cut keeps some channels of every group and some rows of the
classifier; what is left is a smaller network of the same kind, the part.

DepGraph: Towards Any Structural Pruning. Fang, Ma, Song, Mi, Wang. CVPR 2023. arXiv:2301.12900

Where an entry of the part came from is read off, not worked out: each layer's tensors are filled with their
own positions and pruned as the layer is. So no layer type has code of its own here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.pruner.function import PrunerBox

from sheaf.core.cut import Cut, Runs
from sheaf.core.errors import CutError, first_line, nearest
from sheaf.core.types import Params
from sheaf.models.flops import copy_to

LayerSide = tuple[str, Literal["out", "in"]]
"""A layer, and whether the channels that it makes (out) or takes (in) are meant."""

Channel = tuple[str, int]
"""A group's name, and a channel of it."""


@dataclass(frozen=True)
class SiteNeeds:
    """What a scheme of cuts knows of a site.

    Attributes:
        classes: the classes that it has to tell apart, sorted.
        width: the fraction of the width of every layer that the site can carry, above 0 and at most 1.
    """

    name: str
    classes: tuple[int, ...]
    width: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1:
            raise CutError(f"{self.name}'s width is {self.width}; it must be above 0 and at most 1")


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be kept or left out together, in all layers that make or take them.

    Attributes:
        name: the first layer that makes them.
        width: how many there are.
        blocks: the number of equal blocks in which the same positions are kept (the groups of a grouped
            convolution or of a group normalisation); 1 for an ordinary layer.
        layers: the convolutions and linear layers that make them, in the order of the forward pass.
    """

    name: str
    width: int
    blocks: int
    layers: tuple[str, ...]

    @property
    def units(self) -> int:
        """How many channels can be chosen freely: those of one run."""
        return self.width // self.blocks

    def channels(self, units: Iterable[int]) -> tuple[int, ...]:
        """The channels, sorted, that have these positions in each run."""
        chosen = sorted(set(units))
        return tuple(run * self.units + unit for run in range(self.blocks) for unit in chosen)


@dataclass(frozen=True)
class Axis:
    """A dimension of a tensor along which channels lie.

    Attributes:
        tensor: its name in the model's ``state_dict``.
        dim: which of its dimensions.
        channels: the channel at each index; None where it is of no group (the model's inputs).
    """

    tensor: str
    dim: int
    channels: tuple[Channel | None, ...]


class ChannelStructure:
    """A model's groups of coupled channels, and the parts that can be cut from it. Made by ``tracing.trace``.

    Keeps the model's structure, not its parameters.

    Attributes:
        in_shape: (C, H, W) of one example.
        groups: what can be cut, in depth order. The model's inputs and outputs are not among them.
        classifier: what makes the logits; its width is the number of classes.
        convolutions: the names of all convolutions in the order of the forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        in_shape: tuple[int, int, int],
        groups: Sequence[ChannelGroup],
        classifier: ChannelGroup,
        convolutions: Sequence[str],
        ports: Mapping[LayerSide, Sequence[Channel | None]],
    ) -> None:
        self.in_shape = in_shape
        self.groups = tuple(groups)
        self.classifier = classifier
        self.convolutions = tuple(convolutions)
        self._skeleton = copy_to(torch.device("meta"), model)
        stored = model.state_dict().keys()
        self._constants = {
            name: b.detach().clone() for name, b in model.named_buffers() if name not in stored
        }
        self._ports = ports
        self._parts: dict[Cut, SubModel] = {}

    @property
    def num_classes(self) -> int:
        """K, the number of logits."""
        return self.classifier.width

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """Where the channels of all groups, and the classes, lie in the tensors of the model.

        Read off, too: what becomes shorter when a layer loses a channel. Groups of one channel are left out.
        """
        groups = {group.name: group for group in (*self.groups, self.classifier)}
        found = []
        for (name, side), channels in self._ports.items():
            named = (groups[channel[0]] for channel in channels if channel is not None)
            if (group := next((group for group in named if group.units > 1), None)) is None:
                continue
            lost = {(group.name, channel) for channel in group.channels([0])}
            positions = [position for position, channel in enumerate(channels) if channel in lost]
            layer = self._skeleton.get_submodule(name)
            shorter = copy.deepcopy(layer)
            _prune(shorter, _Drops(positions, []) if side == "out" else _Drops([], positions))
            left = shorter.state_dict()
            for tensor, value in layer.state_dict().items():
                for dim, size in enumerate(value.shape):
                    if left[tensor].shape[dim] != size:  # a grouped convolution's has those of one run
                        found.append(Axis(f"{name}.{tensor}", dim, tuple(channels[:size])))
        return tuple(found)

    def cut(
        self,
        kept: Mapping[str, Iterable[int]] | None = None,
        classes: Iterable[int] | None = None,
        other: bool = False,
    ) -> Cut:
        """The cut that keeps these channels of these groups, and all of the others.

        The same part is always the same cut: a group held whole is not listed, nor are all classes.

        Raises:
            CutError: a group does not exist, or its channels cannot be kept so.
        """
        chosen = {name: tuple(sorted(set(channels))) for name, channels in (kept or {}).items()}
        rows = None if classes is None else tuple(sorted(set(classes)))
        whole = {group.name: tuple(range(group.width)) for group in self.groups}
        cut = Cut(
            tuple((name, _runs(chosen[name])) for name in sorted(chosen) if chosen[name] != whole.get(name)),
            None if rows == tuple(range(self.num_classes)) else rows,
            other,
        )
        self._check(cut)
        return cut

    def submodel(self, cut: Cut) -> SubModel:
        """The part that ``cut`` holds; the same cut again costs nothing.

        Raises:
            CutError: the cut does not fit the model, or what it leaves does not run.
        """
        if cut not in self._parts:
            self._check(cut)
            while len(self._parts) >= 256:  # a rolling window makes new cuts in every round
                del self._parts[next(iter(self._parts))]
            self._parts[cut] = SubModel(self, cut)
        return self._parts[cut]

    def _check(self, cut: Cut) -> None:
        groups = {group.name: group for group in self.groups}
        for name, runs in cut.kept:
            if name not in groups:
                raise CutError(
                    f"the model has no group {name!r}{nearest(name, groups)}; it has: {', '.join(groups)}"
                )
            group = groups[name]
            if any(not 0 <= start < stop <= group.width for start, stop in runs):
                raise CutError(f"the channels of {name!r} must be from 0 to {group.width - 1}")
            channels = _indices(runs)
            _check_indices(channels, group.width, f"the channels of {name!r}")
            if channels != group.channels(c for c in channels if c < group.units):
                raise CutError(
                    f"the channels of {name!r} must be kept at the same positions in each of "
                    f"{group.blocks} blocks of {group.units}"
                )
        if cut.classes is not None:
            _check_indices(cut.classes, self.num_classes, "the classes")
        last = self._skeleton.get_submodule(self.classifier.name)
        if cut.other and not (
            isinstance(last, nn.Linear) and self.classifier.layers == (self.classifier.name,)
        ):
            raise CutError(
                f"an 'other' row needs a model that ends in a linear layer, not {type(last).__name__}"
            )

    def _dropped(self, cut: Cut) -> dict[LayerSide, list[int]]:
        """What each layer loses: positions among those that it makes or takes."""
        kept = {name: set(_indices(runs)) for name, runs in cut.kept}
        if cut.classes is not None:
            kept[self.classifier.name] = set(cut.classes)
        lost = {
            port: [
                position
                for position, channel in enumerate(channels)
                if channel is not None and channel[0] in kept and channel[1] not in kept[channel[0]]
            ]
            for port, channels in self._ports.items()
        }
        return {port: positions for port, positions in lost.items() if positions}


class SubModel:
    """What a cut holds of a model: a smaller network, and where its parameters are in the global ones.

    Attributes:
        cut: what it is the part of.
        classes: its logits are for these classes, in this order; then "other", if the cut has it.
    """

    def __init__(self, structure: ChannelStructure, cut: Cut) -> None:
        self.cut = cut
        self.classes = tuple(range(structure.num_classes)) if cut.classes is None else cut.classes
        self._head = structure.classifier.name
        self._skeleton = copy.deepcopy(structure._skeleton)
        whole = self._skeleton.state_dict()
        self._spans: dict[str, tuple[Runs, ...]] = {
            name: tuple(((0, n),) for n in value.shape) for name, value in whole.items()
        }

        dropped = structure._dropped(cut)
        for layer_name in dict.fromkeys(name for name, _ in dropped):
            layer = self._skeleton.get_submodule(layer_name)
            drops = _Drops(dropped.get((layer_name, "out"), []), dropped.get((layer_name, "in"), []))
            _check_grouped(layer_name, layer, drops)
            _prune(layer, drops)
            for name, spans in _origins(structure._skeleton.get_submodule(layer_name), layer, drops).items():
                self._spans[f"{layer_name}.{name}"] = spans
        for name, parameter in structure._skeleton.named_parameters():
            self._skeleton.get_parameter(name).requires_grad_(parameter.requires_grad)
        for name, value in self._skeleton.state_dict().items():
            if tuple(value.shape) != tuple(map(_length, self._spans[name])):
                raise CutError(f"{name} was cut to {tuple(value.shape)}, which its positions do not fit")
        if cut.other:
            _widen(self._skeleton.get_submodule(self._head))
        self._constants = structure._constants
        self._check_runs(structure.in_shape)

    def module(self) -> nn.Module:
        """The smaller network, on the CPU: (N, C, H, W) -> (N, classes held, + 1 with "other").

        Its parameters are zeros until ``load_state_dict(part.take(theta))``.
        """
        model = copy.deepcopy(self._skeleton).to_empty(device="cpu")
        for value in model.state_dict().values():
            value.zero_()
        for name, constant in self._constants.items():
            model.get_buffer(name).copy_(constant)
        return model

    def take(self, params: Params) -> dict[str, Tensor]:
        """The part's own of the global parameters; an "other" row starts as zeros."""
        taken = {}
        for name, value in params.items():
            for dim, runs in enumerate(self._spans[name]):
                if runs != ((0, value.shape[dim]),):
                    pieces = [value.narrow(dim, start, stop - start) for start, stop in runs]
                    value = torch.cat(pieces, dim)  # copies, so nothing holds on to the whole
            taken[name] = value
        if self.cut.other:
            for name in self._rows(taken):
                taken[name] = torch.cat([taken[name], torch.zeros_like(taken[name][:1])])
        return taken

    def fold_other(self, params: Params) -> dict[str, Tensor]:
        """The part's parameters without the "other" row, its score taken off those of the classes.

        z_c - z_other: of what the part knows, how much more it is for the class than for none of its own.
        Parts trained on different classes are comparable in it.
        """
        folded = dict(params)
        for name in self._rows(params):
            folded[name] = params[name][:-1] - params[name][-1:]
        return folded

    def put(self, sums: dict[str, Tensor], counts: dict[str, Tensor], params: Params, weight: float) -> None:
        """Adds weight times ``params`` to the global ``sums``, and weight to the ``counts`` there.

        Args:
            sums: float64 of the global shapes; changed in place.
            counts: the weight that each coordinate has gathered; changed in place. It has one
                entry for a whole dimension until a part comes that does not hold all of that.
            params: the part's parameters; an "other" row is folded. Integer buffers are left out.
            weight: of this part.
        """
        params = self.fold_other(params) if self.cut.other else params
        for name, total in sums.items():
            spans = self._spans[name]
            for there, here in _blocks(spans):
                total[there].add_(params[name][here], alpha=weight)
            counts[name] = _count(counts[name], total.shape, spans, weight)

    def place(self, whole: Mapping[str, Tensor], params: Params) -> None:
        """Writes the part's parameters into a whole state, in place; the rest of it stays as it is."""
        for name, value in whole.items():
            for there, here in _blocks(self._spans[name]):
                value[there] = params[name][here]

    def _check_runs(self, in_shape: tuple[int, int, int]) -> None:
        blank = torch.zeros(2, *in_shape)
        try:
            _run(copy.deepcopy(self._skeleton), blank.to("meta"))
        except CutError:
            _run(self.module(), blank)  # a model may look at values, which the meta device has not

    def _rows(self, params: Params) -> list[str]:
        return [name for name in (f"{self._head}.weight", f"{self._head}.bias") if name in params]


@dataclass(frozen=True)
class _Drops:
    """The channels that a layer loses of those that it makes, and of those that it takes."""

    outs: list[int]
    ins: list[int]


def _prune(layer: nn.Module, drops: _Drops) -> None:
    pruner = PrunerBox[ops.module2type(layer)]
    try:
        if drops.outs:
            pruner.prune_out_channels(layer, drops.outs)
        if drops.ins:
            pruner.prune_in_channels(layer, drops.ins)
    except Exception as error:  # whatever Torch-Pruning trips over
        raise CutError(f"{layer} loses channels that it cannot do without: {first_line(error)}") from error


def _origins(layer: nn.Module, pruned: nn.Module, drops: _Drops) -> dict[str, tuple[Runs, ...]]:
    """For each tensor of the layer: which indices of each of its dimensions are left in the pruned one.

    For each dimension that has become shorter, the tensor is a ruler: every entry is its own index along
    that dimension (a stretched view, so it takes no memory). The layer's pruning shows what is left of it.
    """
    old = {name: value.shape for name, value in layer.state_dict().items()}
    new = {name: value.shape for name, value in pruned.state_dict().items()}
    spans: dict[str, list[Runs]] = {name: [((0, n),) for n in size] for name, size in old.items()}
    for dim in range(max(map(len, old.values()))):
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
        _prune(probe, drops)
        for name in shorter:
            left = probe.state_dict()[name].movedim(dim, 0)
            indices = left.reshape(len(left), -1)[:, 0]
            if not torch.equal(left, indices.view(-1, *[1] * (left.dim() - 1)).expand_as(left)):
                raise CutError(f"{name} of a {type(layer).__name__} is not cut along its dimensions")
            spans[name][dim] = _runs(map(int, indices.tolist()))
    return {name: tuple(runs) for name, runs in spans.items()}


def _check_grouped(name: str, layer: nn.Module, drops: _Drops) -> None:
    """A grouped convolution's weight is one block for all of its groups, so they must lose the same."""
    depthwise = ops.module2type(layer) == ops.OPTYPE.DEPTHWISE_CONV
    if not isinstance(layer, ops.TORCH_CONV) or layer.groups == 1 or depthwise:
        return
    for lost, width in ((drops.outs, layer.out_channels), (drops.ins, layer.in_channels)):
        run = width // layer.groups
        if set(lost) != {start + i % run for start in range(0, width, run) for i in lost}:
            raise CutError(
                f"{name}, a convolution of {layer.groups} groups, would lose other channels in each"
            )


def _widen(head: nn.Module) -> None:
    """Gives a linear layer on the meta device one more output."""
    if isinstance(head, nn.Linear):
        head.out_features += 1
        for name, value in list(head.named_parameters()):
            wider = torch.empty(len(value) + 1, *value.shape[1:], dtype=value.dtype, device="meta")
            head.register_parameter(name, nn.Parameter(wider, value.requires_grad))


def _count(count: Tensor, shape: Sequence[int], spans: Sequence[Runs], weight: float) -> Tensor:
    """``count`` with ``weight`` added in the spans, resolved along a dimension only once that is needed."""
    partial = [runs != ((0, n),) for runs, n in zip(spans, shape, strict=True)]
    size = [n if cut else had for n, cut, had in zip(shape, partial, count.shape, strict=True)]
    count = count if list(count.shape) == size else count.expand(size).clone()
    for there, _ in _blocks([((0, 1),) if n == 1 else runs for runs, n in zip(spans, size, strict=True)]):
        count[there].add_(weight)
    return count


def _blocks(spans: Sequence[Runs]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """The blocks that an outer product of runs is made of: where in the whole, where in the part."""
    pairs = []
    for runs in spans:
        at, both = 0, []
        for start, stop in runs:
            both.append((slice(start, stop), slice(at, at + stop - start)))
            at += stop - start
        pairs.append(both)
    for block in product(*pairs):
        yield tuple(there for there, _ in block), tuple(here for _, here in block)


def _run(model: nn.Module, x: Tensor) -> None:
    """Has a network classify ``x``.

    Raises:
        CutError: it cannot; names the layer.
    """
    entered = ["the model"]
    for name, layer in model.named_modules():
        layer.register_forward_pre_hook(lambda *_, name=name: entered.append(name))
    try:
        with torch.no_grad():
            model.eval()(x)
    except Exception as error:  # whatever the model trips over
        raise CutError(f"what a cut leaves does not run, at {entered[-1]}: {first_line(error)}") from error


def _check_indices(indices: tuple[int, ...], width: int, what: str) -> None:
    if not indices:
        raise CutError(f"{what} cannot all be left out")
    if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= width:
        raise CutError(f"{what} must be different numbers from 0 to {width - 1}, in order")


def _runs(indices: Iterable[int]) -> Runs:
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return tuple(runs)


def _indices(runs: Runs) -> tuple[int, ...]:
    return tuple(index for start, stop in runs for index in range(start, stop))


def _length(runs: Runs) -> int:
    return sum(stop - start for start, stop in runs)
