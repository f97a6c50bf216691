"""The global model and everything that is derived from it, cached for all sites of a process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.core.recipe import StatisticKind
from sheaf.models import flops
from sheaf.models.check_cache import result_of
from sheaf.models.forward_effects import effects_of, is_marked
from sheaf.submodels.block_diagonal import BlockDiagonal
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.structure import ChannelStructure
from sheaf.submodels.submodel import SubModel
from sheaf.training import class_moments, optimizer_state
from sheaf.training.evaluation import Evaluation
from sheaf.training.merge_statistics import gram_macs_per_example
from sheaf.training.model_check import draws_randomly, why_not_stacked
from sheaf.training.seeded_dropout import drops

log = logging.getLogger("sheaf")

CACHED = 16
"""Entries of each cache. A rolling cut makes new sub-models in every round."""


@dataclass(frozen=True)
class Traits:
    """Properties of a network that decide how it can be trained beside others.

    Attributes:
        convolves: it has convolutions.
        draws: layers other than dropout draw random numbers in training, from the global generator, or the
            model has an effect that bars it from threads.
        stacks: none of its layers draws, and a stack can train it; see ``model_check``.
    """

    convolves: bool
    draws: bool
    stacks: bool


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one example.

    Attributes:
        forward: of the forward pass.
        train: of the forward and the backward pass.
    """

    forward: int
    train: int


class Network:
    """The global model and its sub-models.

    Args:
        model: (N, C, H, W) -> (N, K) logits. Sites of one process share it, as every task brings or recalls
            parameters.
        in_shape: (C, H, W) of one example.
    """

    def __init__(self, model: nn.Module, in_shape: tuple[int, int, int]) -> None:
        self.model = model
        self.in_shape = in_shape
        self._modules: dict[Cut, nn.Module] = {}
        self._macs: dict[tuple[_Widths, Blocks], Macs] = {}
        self._num_parameters: dict[_Widths, int] = {}
        self._bound: dict[Blocks, BlockDiagonal] = {}
        self._traits: dict[_Widths, Traits] = {}
        self._compared: str | None = None  # the result of the comparison of the ways of training
        self._evaluations: dict[Hashable, Evaluation] = {}
        self._lock = threading.RLock()  # sites train and reply on several threads

    @cached_property
    def structure(self) -> ChannelStructure:
        """The groups of channels that can be cut.

        Raises:
            CutError: the model cannot be traced.
        """
        return trace(self.model, self.in_shape)

    @property
    def classifier(self) -> nn.Linear:
        """The layer that computes the logits.

        Raises:
            CutError: it is not a linear layer, or the model cannot be traced.
        """
        name = self.structure.classifier.name
        last = self.model.get_submodule(name)
        if not isinstance(last, nn.Linear):
            raise CutError(f"the model ends in {name} ({type(last).__name__}), not in a linear layer")
        return last

    @property
    def classifier_bias(self) -> str:
        """The name of the bias of the layer that computes the logits.

        Raises:
            CutError: the layer has none, or see ``classifier``.
        """
        name = self.structure.classifier.name
        if self.classifier.bias is None:
            raise CutError(
                f"the classifier {name} has no bias, which method.own_classes changes: set it to false"
            )
        return f"{name}.bias" if name else "bias"

    def shapes(self, cut: Cut | None, blocks: Blocks = ()) -> dict[str, Tensor]:
        """Return the ``state_dict`` of the cut, or of the whole model, on the meta device.

        Args:
            cut: the cut; None: the whole model.
            blocks: of the whole model, see ``bound``: the shapes are those of its packed parameters.
        """
        shapes = {name: value.to("meta") for name, value in self.model.state_dict().items()}
        if blocks:
            return self.bound(blocks).pack(shapes)
        return shapes if cut is None else self.submodel(cut).take(shapes)

    def blocks(self, cuts: Iterable[Cut]) -> Blocks:
        """Return the different cuts from which a model is bound; none if it has no zeros between blocks."""
        blocks = tuple(dict.fromkeys(replace(cut, other=False) for cut in cuts))
        return blocks if blocks and self.bound(blocks).blocks else ()

    def bound(self, blocks: Blocks) -> BlockDiagonal:
        """Return the blocks of the whole model, bound from the sub-models of these cuts.

        Raises:
            CutError: a cut does not fit the model.
        """
        with self._lock:
            if blocks not in self._bound:
                self._bound.clear()
                self._bound[blocks] = BlockDiagonal(self.model, [self.submodel(cut) for cut in blocks])
            return self._bound[blocks]

    def submodel(self, cut: Cut) -> SubModel:
        """Return the sub-model that ``cut`` selects."""
        return self.structure.submodel(cut)

    def of(self, cut: Cut | None) -> nn.Module:
        """Return the module of a cut, or the whole model. Its parameters are those last loaded into it."""
        if cut is None:
            return self.model
        with self._lock:
            if cut not in self._modules:
                if len(self._modules) >= CACHED:
                    del self._modules[next(iter(self._modules))]
                self._modules[cut] = self.submodel(cut).module()
            return self._modules[cut]

    def macs(self, cut: Cut | None = None, blocks: Blocks = ()) -> Macs:
        """Return the multiply-adds of one example in the cut, or in the whole model.

        Args:
            cut: the cut; None: the whole model.
            blocks: of the whole model, see ``bound``: only products with them count.
        """
        key = _widths(cut), blocks
        with self._lock:
            if key not in self._macs:
                module = self.of(cut)
                with self.bound(blocks).multiplied(module) if blocks else nullcontext():
                    self._macs[key] = Macs(
                        flops.macs_per_example(module, self.in_shape),
                        flops.train_macs_per_example(module, self.in_shape),
                    )
            return self._macs[key]

    def num_parameters(self, cut: Cut | None = None, blocks: Blocks = ()) -> int:
        """Return the number of entries in the ``state_dict`` of the cut, or of the whole model.

        Args:
            cut: the cut; None: the whole model.
            blocks: of the whole model, see ``bound``: zeros between them do not count.
        """
        if blocks:
            return sum(value.numel() for value in self.shapes(None, blocks).values())
        widths = _widths(cut)
        with self._lock:
            if widths not in self._num_parameters:
                state = self.of(cut).state_dict()
                self._num_parameters[widths] = sum(value.numel() for value in state.values())
            return self._num_parameters[widths]

    def traits(self, cut: Cut | None = None) -> Traits:
        """Return how the cut, or the whole model, can be trained beside others."""
        widths = _widths(cut)
        if widths not in self._traits:
            module = self.of(cut)
            effects, stacks = effects_of(module), False
            draws = bool(effects.alone) or draws_randomly(module, self.in_shape)
            if not draws and not drops(module) and not effects.not_recorded:
                stacks = not self._why_not_stacked(module, cut)
            convolves = any(isinstance(layer, _ConvNd) for layer in module.modules())
            self._traits[widths] = Traits(convolves, draws, stacks)
        return self._traits[widths]

    def _why_not_stacked(self, module: nn.Module, cut: Cut | None) -> str:
        """Return why sites cannot train in a stack; "" if they can.

        The ways of training a user's network are compared once, on the first sub-model that is asked for.
        """
        if not is_marked(module):
            return why_not_stacked(module, self.in_shape, compare=False)
        first = self._compared is None
        if self._compared is None:
            key = effects_of(module).fingerprint if cut is None else ""
            self._compared = result_of(
                key, "ways", lambda: why_not_stacked(module, self.in_shape, compare=True)
            )
            if self._compared:
                log.info("sites are trained one by one, without recorded steps: %s", self._compared)
        if first or self._compared:
            return self._compared
        return why_not_stacked(module, self.in_shape, compare=False)

    def evaluated(self, key: Hashable, evaluate: Callable[[], Evaluation]) -> Evaluation:
        """Return the cached evaluation of that key, or the result of ``evaluate``.

        The cloud evaluates an average, and then each edge that holds it does.
        """
        if key not in self._evaluations:
            if len(self._evaluations) >= CACHED:
                del self._evaluations[next(iter(self._evaluations))]
            self._evaluations[key] = evaluate()
        return self._evaluations[key]

    def statistic_macs(
        self,
        kind: StatisticKind,
        cut: Cut | None = None,
        layer: str | None = None,
        blocks: Blocks = (),
    ) -> int:
        """Return the multiply-adds of a statistic for each example that it is computed on."""
        if kind in optimizer_state.SLOTS:
            return 0
        macs = self.macs(cut, blocks)
        if kind == "fisher":
            return macs.train
        if kind == "batch_norm":
            return macs.forward
        if kind == "features":
            return macs.forward + class_moments.macs_per_example(self.classifier)
        return macs.forward + gram_macs_per_example(self.of(cut), self.in_shape, layer)


Blocks = tuple[Cut, ...]
"""The different cuts from which a model is bound, without "other" rows; empty: it has no known blocks."""

_Widths = tuple[tuple[tuple[str, int], ...], int | None, bool] | None
"""The sizes of a cut's network, whichever channels it holds: a rolling window keeps its width."""


def _widths(cut: Cut | None) -> _Widths:
    if cut is None:
        return None
    widths = tuple((name, sum(stop - start for start, stop in runs)) for name, runs in cut.kept)
    return widths, None if cut.classes is None else len(cut.classes), cut.other
