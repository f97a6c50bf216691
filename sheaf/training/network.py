"""A network with all that is read off it once, however many sites hold it or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.core.recipe import StatisticKind
from sheaf.models import flops
from sheaf.submodels.structure import ChannelStructure
from sheaf.submodels.submodel import SubModel
from sheaf.submodels.dependency_graph import trace
from sheaf.training import vectorized
from sheaf.training.merge_statistics import gram_macs_per_example
from sheaf.training.seeded_dropout import drops


@dataclass(frozen=True)
class Nature:
    """How a network can be trained beside others.

    Attributes:
        convolves: it has convolutions.
        draws: layers other than dropout draw random numbers in training, all from one generator.
        stacks: none of its layers draws, and see ``stacked.can_stack``.
    """

    convolves: bool
    draws: bool
    stacks: bool


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one example: ``forward`` to classify it, ``train`` forward and backward."""

    forward: int
    train: int


class Network:
    """The global model and its parts.

    Args:
        model: (N, C, H, W) -> (N, K) logits. Sites of one process share it: every task brings or recalls
            parameters.
        in_shape: (C, H, W) of one example.
    """

    def __init__(self, model: nn.Module, in_shape: tuple[int, int, int]) -> None:
        self.model = model
        self.in_shape = in_shape
        self._submodels: dict[Cut, nn.Module] = {}
        self._macs: dict[_Widths, Macs] = {}
        self._numbers: dict[_Widths, int] = {}
        self._natures: dict[_Widths, Nature] = {}
        self._measured: dict[Hashable, tuple[Tensor, float]] = {}

    @cached_property
    def structure(self) -> ChannelStructure:
        """The groups of channels that can be cut.

        Raises:
            CutError: the model cannot be traced.
        """
        return trace(self.model, self.in_shape)

    @property
    def classifier(self) -> nn.Linear:
        """The layer that makes the logits.

        Raises:
            CutError: it is not a linear one, or the model cannot be traced.
        """
        name = self.structure.classifier.name
        last = self.model.get_submodule(name)
        if not isinstance(last, nn.Linear):
            raise CutError(f"the model ends in {name} ({type(last).__name__}), not in a linear layer")
        return last

    def submodel(self, cut: Cut) -> SubModel:
        """What ``cut`` holds of the model."""
        return self.structure.submodel(cut)

    def of(self, cut: Cut | None) -> nn.Module:
        """The module of a cut, or the whole model; its parameters are whatever they were last."""
        if cut is None:
            return self.model
        if cut not in self._submodels:
            if len(self._submodels) >= KEPT:
                del self._submodels[next(iter(self._submodels))]
            self._submodels[cut] = self.submodel(cut).module()
        return self._submodels[cut]

    def macs(self, cut: Cut | None = None) -> Macs:
        """What one example costs in the cut, or in the whole model."""
        widths = _widths(cut)
        if widths not in self._macs:
            module = self.of(cut)
            self._macs[widths] = Macs(
                flops.macs_per_example(module, self.in_shape),
                flops.train_macs_per_example(module, self.in_shape),
            )
        return self._macs[widths]

    def numbers(self, cut: Cut | None = None) -> int:
        """How many numbers the state of the cut holds, or that of the whole model."""
        widths = _widths(cut)
        if widths not in self._numbers:
            self._numbers[widths] = sum(value.numel() for value in self.of(cut).state_dict().values())
        return self._numbers[widths]

    def nature(self, cut: Cut | None = None) -> Nature:
        """How the cut, or the whole model, can be trained beside others."""
        widths = _widths(cut)
        if widths not in self._natures:
            module = self.of(cut)
            draws = vectorized.draws(module, self.in_shape)
            self._natures[widths] = Nature(
                convolves=any(isinstance(layer, _ConvNd) for layer in module.modules()),
                draws=draws,
                stacks=not draws and not drops(module) and vectorized.can_stack(module, self.in_shape),
            )
        return self._natures[widths]

    def once(self, what: Hashable, measure: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float]:
        """What ``measure`` finds of the network with some weights on some data; not found twice in a row.

        An average is measured by the cloud, and then again by each edge that holds it.
        """
        if what not in self._measured:
            if len(self._measured) >= KEPT:
                del self._measured[next(iter(self._measured))]
            self._measured[what] = measure()
        return self._measured[what]

    def statistic_macs(self, kind: StatisticKind, cut: Cut | None = None) -> int:
        """What a statistic costs for each example that it is computed on."""
        if kind == "fisher":
            return self.macs(cut).train
        return self.macs(cut).forward + gram_macs_per_example(self.of(cut), self.in_shape)


_Widths = tuple[tuple[tuple[str, int], ...], int | None, bool] | None
"""What a cut's network looks like, whichever channels it holds: a window that moves keeps its width."""


def _widths(cut: Cut | None) -> _Widths:
    if cut is None:
        return None
    kept = tuple((name, sum(stop - start for start, stop in runs)) for name, runs in cut.kept)
    return kept, None if cut.classes is None else len(cut.classes), cut.other


KEPT = 16
"""Submodels and measurements kept at hand; a rolling cut makes new ones in every round."""
