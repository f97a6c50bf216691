"""FIARSE: each edge trains the largest parameters of the model, as many as its width allows.

FIARSE: Model-Heterogeneous Federated Learning via Importance-Aware Submodel Extraction.
Feijie Wu, Xingchen Wang, Yaqing Wang, Tianci Liu, Lu Su, Jing Gao, 2024. https://arxiv.org/abs/2407.19389

A sub-model is a mask of single parameters, which saves no work in dense kernels: an edge sends, receives and
computes as for the whole model, and that is what the result counts. The paper counts the kept parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._server_step import server_step
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.training.losses.importance_mask import ImportanceMask
from sheaf.training.network import Network


@settings
class FIARSE:
    """Settings of FIARSE. An edge of width w in ``fleet.widths`` keeps the fraction w^2 of the parameters.

    That is about the size of a sub-model with w of the channels. Weights and biases of convolutions and
    linear layers are masked, by one threshold for all layers.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds its sub-model of it."""
        sizes = {site.name: site.width**2 for site in fleet.needs}
        local = replace(self.local, loss=ImportanceMask(loss=self.local.loss))
        names = tuple(fleet.compute("names of masked parameters", _masked_parameters))
        state: Params = {}
        for n in range(1, self.rounds + 1):
            thresholds = _thresholds(fleet, theta, names, sizes.values())
            own = {site: _constants(names, thresholds, size) for site, size in sizes.items()}
            updates = fleet.train(theta, local, own=own)
            mean = fleet.merge(_MeanOfKept(names, thresholds, sizes), theta, updates)
            theta, state = server_step(self.server, fleet, theta, mean, state)
            log("average", cloud.evaluate(theta), n)
        thresholds = _thresholds(fleet, theta, names, sizes.values())
        kept = {site: _kept(theta, names, thresholds, size) for site, size in sizes.items()}
        fleet.adopt(theta, own=kept)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> FIARSE:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))


def threshold_of(theta: Params, names: Sequence[str], size: float) -> Tensor:
    """Return the size of the smallest parameter among a fraction ``size`` of the largest; 0 for all."""
    if size == 1:
        return torch.zeros(())
    values = torch.cat([theta[name].flatten().abs() for name in names])
    return values.topk(max(1, int(size * len(values)))).values[-1].float()


def _thresholds(fleet: Edges, theta: Params, names: Sequence[str], sizes: Iterable[float]) -> Params:
    """Return the text of a size -> its threshold, recorded."""
    different = sorted(set(sizes))
    return fleet.compute(
        "thresholds of importance",
        lambda _: {str(size): threshold_of(theta, names, size) for size in different},
    )


def _masked_parameters(network: Network) -> dict[str, Tensor]:
    """Return a number for the weight and the bias of each convolution and each linear layer."""
    layers = {
        name for name, module in network.model.named_modules() if isinstance(module, (_ConvNd, nn.Linear))
    }
    parameters = [name for name, _ in network.model.named_parameters()]
    return {name: torch.ones(()) for name in parameters if name.rpartition(".")[0] in layers}


def _constants(names: Sequence[str], thresholds: Params, size: float) -> EdgeTensors:
    """Return the constants of ``ImportanceMask``."""
    return EdgeTensors(
        f"{blob_of(thresholds).key} {size}",
        {f".threshold {name}": torch.zeros(()) for name in names},
        lambda: {f".threshold {name}": thresholds[str(size)] for name in names},
    )


def _kept(theta: Params, names: Sequence[str], thresholds: Params, size: float) -> EdgeTensors:
    """Return the masked parameters of a sub-model of ``theta``: zeros below the threshold."""

    def compute() -> dict[str, Tensor]:
        threshold = thresholds[str(size)]
        return {name: theta[name].where(theta[name].abs() >= threshold, 0) for name in names}

    shapes = {name: theta[name].to("meta") for name in names}
    return EdgeTensors(f"{blob_of(theta).key} {blob_of(thresholds).key} {size}", shapes, compute)


@dataclass(frozen=True)
class _MeanOfKept:
    """The mean of each parameter over the edges whose sub-model has it.

    Attributes:
        names: the masked parameters; the mean of others is over all edges.
        thresholds: the text of a size -> its threshold.
        sizes: edge -> the size of its sub-model.
    """

    names: Sequence[str]
    thresholds: Params
    sizes: Mapping[str, float]

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        def contributions() -> Iterator[Contribution]:
            for update in updates:
                threshold = self.thresholds[str(self.sizes[update.site])]
                masks = {name: (theta[name].abs() >= threshold).double() for name in self.names}
                yield Contribution(update.params, 1.0, entry_weights=masks)

        return average(theta, contributions())
