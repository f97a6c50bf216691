"""Ditto: FedAvg, and on each edge a personal model that is kept near the global one.

Ditto: Fair and Robust Federated Learning Through Personalization.
Tian Li, Shengyuan Hu, Ahmad Beirami, Virginia Smith, 2021. https://arxiv.org/abs/2012.04221

The personal models stay on the edges. The cloud sends the global model twice in a round: once to train it,
once as the anchor of the personal model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.stored_params import blob_of
from sheaf.core.types import Params
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._server_step import server_step
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.training.losses.proximal import Proximal
from sheaf.training.network import Network


@settings
class Ditto:
    """Settings of Ditto.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains the global model in a round.
        personal: how each edge trains its personal model in a round.
        strength: lambda in the paper, above 0: how near the personal models stay to the global one.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    personal: Recipe = Recipe(epochs=1)
    strength: Annotated[float, Field(gt=0)] = 0.1
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds its personal model."""
        personal = replace(self.personal, loss=Proximal(mu=self.strength, loss=self.personal.loss))
        shapes = fleet.compute("shapes of trained parameters", _shapes)
        state: Params = {}
        fleet.adopt(theta)  # v_k of the start
        for n in range(1, self.rounds + 1):
            kept = fleet.remember()
            updates = fleet.train(theta, self.local)
            mean = fleet.merge(WeightedMean(), theta, updates)
            fleet.choose(kept, ())  # hold v_k again
            anchor = _anchor(theta, shapes)
            fleet.train(None, personal, own={site.name: anchor for site in fleet.needs}, reply=False)
            theta, state = server_step(self.server, fleet, theta, mean, state)
            log("average", cloud.evaluate(theta), n)
        log("personal", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        epochs = self.rounds * (self.local.epochs + self.personal.epochs)
        return TrainingBudget(recipe=self.local, edge_epochs=epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> Ditto:
        """Return one round of one epoch for each model for two edge epochs of the budget."""
        both = budget.edge_epochs > 1
        local = replace(budget.recipe, epochs=1)
        return cls(
            rounds=max(1, budget.edge_epochs // 2), local=local, personal=replace(local, epochs=int(both))
        )


def _shapes(network: Network) -> dict[str, Tensor]:
    """Return zeros of the shapes of the trained parameters."""
    return {
        name: torch.zeros(value.shape, dtype=value.dtype)
        for name, value in network.model.named_parameters()
        if value.requires_grad
    }


def _anchor(theta: Params, shapes: Params) -> EdgeTensors:
    """Return the global model as the anchor of ``Proximal``."""
    names = {f".anchor {name}": name for name in shapes}
    return EdgeTensors(
        f"anchor {blob_of(theta).key}",
        {key: shapes[name].to("meta") for key, name in names.items()},
        lambda: {key: theta[name] for key, name in names.items()},
    )
