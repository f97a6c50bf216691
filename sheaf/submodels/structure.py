"""The groups of coupled channels of a model, and the cuts that they allow.

A model's layers are coupled: one layer makes channels, the next takes them, and a residual sum couples the
channels of two layers. A cut keeps some channels of every group and some rows of the classifier. The rest
is a smaller network of the same architecture, the sub-model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError, nearest
from sheaf.models.flops import copy_to
from sheaf.submodels.pruning import Removed, Side, prune
from sheaf.submodels.runs import indices_of, runs_of
from sheaf.submodels.submodel import SubModel

Port = tuple[str, Side]
"""A layer's name, and its output or input channels."""

Channel = tuple[str, int]
"""A group's name, and a channel of it."""

CACHED_SUBMODELS = 256
"""A rolling window makes new cuts in every round, so the cache is bounded."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are kept or removed together, in all layers that make or take them.

    Attributes:
        name: the first layer that makes them.
        width: the number of channels.
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
        """The number of channels that can be chosen independently: those of one block."""
        return self.width // self.blocks

    def channels(self, units: Iterable[int]) -> tuple[int, ...]:
        """Return the channels at these positions of each block, sorted."""
        chosen = sorted(set(units))
        return tuple(block * self.units + unit for block in range(self.blocks) for unit in chosen)


@dataclass(frozen=True)
class Axis:
    """A dimension of a tensor along which channels are laid out.

    Attributes:
        tensor: its name in the model's ``state_dict``.
        dim: the dimension.
        channels: the channel at each index; None for a channel of no group (the model's inputs).
    """

    tensor: str
    dim: int
    channels: tuple[Channel | None, ...]


class ChannelStructure:
    """The groups of coupled channels of a model, and its sub-models. Made by ``dependency_graph.trace``.

    Keeps the model's architecture, not its parameters.

    Args:
        model: the network.
        ports: for the outputs and inputs of each layer, the channel at each position.

    Attributes:
        in_shape: (C, H, W) of one example.
        groups: the groups of channels in depth order, without the model's inputs and outputs.
        classifier: the group of the logits; its width is the number of classes.
        convolutions: the names of all convolutions in the order of the forward pass.
        mixers: the kinds of layers and operations that may mix the channels of several sub-models.
        binding_errors: names of shared groups -> the error measured by ``binding_check.binding_error``.
    """

    def __init__(
        self,
        model: nn.Module,
        in_shape: tuple[int, int, int],
        groups: Sequence[ChannelGroup],
        classifier: ChannelGroup,
        convolutions: Sequence[str],
        ports: Mapping[Port, Sequence[Channel | None]],
    ) -> None:
        self.in_shape = in_shape
        self.groups = tuple(groups)
        self.classifier = classifier
        self.convolutions = tuple(convolutions)
        self.mixers: tuple[str, ...] = ()
        self.binding_errors: dict[frozenset[str], float] = {}
        self._skeleton = copy_to(torch.device("meta"), model)
        stored = model.state_dict().keys()
        self._constants = {
            name: b.detach().clone() for name, b in model.named_buffers() if name not in stored
        }
        self._ports = ports
        self._submodels: dict[Cut, SubModel] = {}

    @property
    def num_classes(self) -> int:
        """K, the number of logits."""
        return self.classifier.width

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The tensor dimensions along which the channels of the groups, and the classes, are laid out.

        Read off: a dimension that becomes shorter when the layer loses a channel. Groups with a single
        unit are left out.
        """
        groups = {group.name: group for group in (*self.groups, self.classifier)}
        axes = []
        for (name, side), channels in self._ports.items():
            of_port = (groups[channel[0]] for channel in channels if channel is not None)
            if (group := next((group for group in of_port if group.units > 1), None)) is None:
                continue
            lost = {(group.name, channel) for channel in group.channels([0])}
            positions = [position for position, channel in enumerate(channels) if channel in lost]
            layer = self._skeleton.get_submodule(name)
            shorter = copy.deepcopy(layer)
            prune(shorter, Removed(positions, []) if side == "out" else Removed([], positions))
            left = shorter.state_dict()
            for tensor, value in layer.state_dict().items():
                for dim, size in enumerate(value.shape):
                    if (
                        left[tensor].shape[dim] != size
                    ):  # that of a grouped convolution has one block's channels
                        axes.append(Axis(f"{name}.{tensor}", dim, tuple(channels[:size])))
        return tuple(axes)

    def cut(
        self,
        kept: Mapping[str, Iterable[int]] | None = None,
        classes: Iterable[int] | None = None,
        other: bool = False,
    ) -> Cut:
        """Return the cut that keeps these channels of these groups, and all channels of the other groups.

        Equal sub-models have equal cuts: groups kept whole are not listed, and all classes are None.

        Raises:
            CutError: a group does not exist, or its channels cannot be kept so.
        """
        chosen = {name: tuple(sorted(set(channels))) for name, channels in (kept or {}).items()}
        rows = None if classes is None else tuple(sorted(set(classes)))
        whole = {group.name: tuple(range(group.width)) for group in self.groups}
        cut = Cut(
            tuple(
                (name, runs_of(chosen[name])) for name in sorted(chosen) if chosen[name] != whole.get(name)
            ),
            None if rows == tuple(range(self.num_classes)) else rows,
            other,
        )
        self._check(cut)
        return cut

    def submodel(self, cut: Cut) -> SubModel:
        """Return the sub-model that ``cut`` selects, from a cache for a cut that was used before.

        Raises:
            CutError: the cut does not fit the model, or the sub-model does not run.
        """
        if cut not in self._submodels:
            self._check(cut)
            while len(self._submodels) >= CACHED_SUBMODELS:
                del self._submodels[next(iter(self._submodels))]
            self._submodels[cut] = SubModel(
                cut,
                tuple(range(self.num_classes)) if cut.classes is None else cut.classes,
                self._skeleton,
                self._constants,
                self.classifier.name,
                self._removed(cut),
                self.in_shape,
            )
        return self._submodels[cut]

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
            channels = indices_of(runs)
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

    def _removed(self, cut: Cut) -> dict[str, Removed]:
        """Return the channels that each layer loses, as positions among those that it makes and takes."""
        kept = {name: set(indices_of(runs)) for name, runs in cut.kept}
        if cut.classes is not None:
            kept[self.classifier.name] = set(cut.classes)
        removed: dict[str, Removed] = {}
        for (layer, side), channels in self._ports.items():
            positions = [
                position
                for position, channel in enumerate(channels)
                if channel is not None and channel[0] in kept and channel[1] not in kept[channel[0]]
            ]
            if positions:
                of_layer = removed.setdefault(layer, Removed([], []))
                (of_layer.outs if side == "out" else of_layer.ins).extend(positions)
        return removed


def _check_indices(indices: tuple[int, ...], width: int, name: str) -> None:
    if not indices:
        raise CutError(f"{name} cannot all be removed; keep at least one")
    if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= width:
        raise CutError(f"{name} must be different numbers from 0 to {width - 1}, in order")
