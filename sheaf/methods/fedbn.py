"""FedBN: FedAvg in which each edge keeps its own batch normalisation.

FedBN: Federated Learning on Non-IID Features via Local Batch Normalization.
Xiaoxiao Li, Meirui Jiang, Xiaofei Zhang, Michael Kamp, Qi Dou, 2021. https://arxiv.org/abs/2102.07623

The cloud keeps each edge's batch normalisation and sends it back, so that an edge that was away has its own
again; as published, these parameters stay on the edge. The cloud's own model has their mean.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._server_step import server_step
from sheaf.methods._training_budget import TrainingBudget
from sheaf.methods.fedavg import FedAvg
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.training.network import Network


@settings
class FedBN:
    """Settings of FedBN.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        sample: the fraction of the edges that trains in a round, above 0 and at most 1.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds it with its own batch normalisation."""
        names = [site.name for site in fleet.needs]
        norms = fleet.compute("batch normalisation of the start", lambda network: _norms(network, theta))
        own: dict[str, EdgeTensors] = {}
        state: Params = {}
        for n in range(1, self.rounds + 1):
            drawn = names if self.sample == 1 else fleet.sample(names, self.sample)
            updates = fleet.train(theta, self.local, only=drawn, own=own)
            mean = fleet.merge(WeightedMean(), theta, updates)
            own |= {update.site: _of(fleet, update, norms) for update in updates}
            theta, state = server_step(self.server, fleet, theta, mean, state)
            log("average", cloud.evaluate(theta), n)
        fleet.adopt(theta, own=own)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run; that of FedAvg."""
        return FedAvg(rounds=self.rounds, local=self.local, sample=self.sample).budget

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedBN:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))


def _norms(network: Network, theta: Params) -> dict[str, Tensor]:
    """Return the parameters and the statistics of batch normalisation in ``theta``."""
    layers = {name for name, module in network.model.named_modules() if isinstance(module, _BatchNorm)}
    return {name: value for name, value in theta.items() if name.rpartition(".")[0] in layers}


def _of(fleet: Edges, update: Update, shapes: Params) -> EdgeTensors:
    """Return the batch normalisation of an edge's model."""

    def compute(_: Network) -> dict[str, Tensor]:
        params = update.params
        return {name: params[name] for name in shapes}

    found = fleet.compute(f"batch normalisation of {update.site}", compute)
    meta = {name: value.to("meta") for name, value in shapes.items()}
    return EdgeTensors(blob_of(found).key, meta, lambda: found)
