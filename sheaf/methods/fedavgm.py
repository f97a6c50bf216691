"""FedAvgM: FedAvg with momentum in the cloud.

Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification.
Tzu-Ming Harry Hsu, Hang Qi, Matthew Brown, 2019. https://arxiv.org/abs/1909.06335
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._training_budget import TrainingBudget
from sheaf.methods.fedavg import FedAvg
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log


@settings
class FedAvgM:
    """Settings of FedAvgM: ``fedavg`` with ``server = { optimizer = "sgd", … }``.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        lr: the learning rate of the server.
        momentum: of the server, beta in the paper.
        sample: the fraction of the edges that trains in a round, above 0 and at most 1.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    lr: Annotated[float, Field(gt=0)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the global model after the last round; each edge then holds it."""
        server = ServerOptimizer(optimizer="sgd", lr=self.lr, momentum=self.momentum)
        averaging = FedAvg(rounds=self.rounds, local=self.local, sample=self.sample, server=server)
        return averaging.run(theta, fleet, cloud, log)

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run; that of FedAvg."""
        return FedAvg(rounds=self.rounds, local=self.local, sample=self.sample).budget

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedAvgM:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
