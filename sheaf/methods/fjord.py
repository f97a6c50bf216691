"""FjORD: each edge trains the first channels of every layer, up to its width, with ordered dropout.

FjORD: Fair and Accurate Federated Learning under heterogeneous targets with Ordered Dropout.
Samuel Horvath, Stefanos Laskaridis, Mario Almeida and others, 2021. https://arxiv.org/abs/2102.13451

Without self-distillation, an option of the paper. A step at a smaller width multiplies by zeros: an edge
computes as for its own width, and that is what the result counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods import _static_batch_norm
from sheaf.methods._server_step import server_step
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.submodels.nesting import levels
from sheaf.submodels.schemes.prefix import Prefix
from sheaf.training.losses.ordered_dropout import OrderedDropout
from sheaf.training.network import Network

Width = Annotated[float, Field(gt=0, le=1)]


@settings
class FjORD:
    """Settings of FjORD; ``fleet.widths`` sets the width of each edge.

    A parameter becomes the mean over the edges that hold it, weighted by their examples (section 3.3).

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        widths: the widths from which each step draws one, up to that of the edge; each above 0 and at most 1.
            Empty: those of all edges.
        static: estimate the statistics of batch norm after the last round, as ``heterofl`` does, because a
            step at a small width passes zeros to the others. The paper keeps statistics for each width.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    widths: tuple[Width, ...] = ()
    static: bool = True
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds its sub-model of it."""
        local = replace(self.local, loss=OrderedDropout(loss=self.local.loss))
        cuts = fleet.cut(Prefix())
        of_fleet = self.widths or tuple(site.width for site in fleet.needs)
        drawn = {site.name: widths_up_to(site.width, of_fleet) for site in fleet.needs}
        of_cut = {(cut, drawn[site]): None for site, cut in cuts.items()}
        constants = {key: _constants(fleet, *key) for key in of_cut}
        own = {site: constants[cut, drawn[site]] for site, cut in cuts.items()}
        state: Params = {}
        for n in range(1, self.rounds + 1):
            updates = fleet.train(theta, local, cuts=cuts, own=own)
            mean = fleet.average(theta, updates, by_examples=True)
            theta, state = server_step(self.server, fleet, theta, mean, state)
            log("average", cloud.evaluate(theta), n)
        statistics: dict[str, EdgeTensors] = {}
        if self.static:
            theta, statistics = _static_batch_norm.estimate(theta, fleet, cuts)
            if statistics:
                log("new statistics", cloud.evaluate(theta), self.rounds)
        fleet.adopt(theta, cuts, own=statistics)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> FjORD:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))


def widths_up_to(width: float, widths: Sequence[float]) -> tuple[float, ...]:
    """Return the sorted different widths below ``width``, and ``width``."""
    return (*sorted({each for each in widths if each < width}), width)


def _constants(fleet: Edges, cut: Cut, widths: Sequence[float]) -> EdgeTensors:
    """Return the constants of ``OrderedDropout`` for a sub-model."""

    def compute(network: Network) -> Mapping[str, Tensor]:
        trained = {name for name, _ in network.model.named_parameters()}
        found = levels(network.structure, cut, widths)
        return {f".level{dim} {name}": level for (name, dim), level in found.items() if name in trained}

    tensors = fleet.compute("levels of ordered dropout", compute)
    return EdgeTensors.of({**tensors, ".widths": torch.tensor(float(len(widths)))})
