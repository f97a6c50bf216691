"""FedAdam: FedAvg with Adam in the cloud.

Adaptive Federated Optimization. Sashank J. Reddi, Zachary Charles, Manzil Zaheer and others, 2021.
https://arxiv.org/abs/2003.00295
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
class FedAdam:
    """Settings of FedAdam: ``fedavg`` with ``server = { optimizer = "adam", … }``.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        lr: the learning rate of the server, eta in the paper.
        eps: tau in the paper: a larger value adapts less.
        sample: the fraction of the edges that trains in a round, above 0 and at most 1.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    lr: Annotated[float, Field(gt=0)] = 0.01
    eps: Annotated[float, Field(gt=0)] = 1e-3
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the global model after the last round; each edge then holds it."""
        server = ServerOptimizer(optimizer="adam", lr=self.lr, eps=self.eps)
        averaging = FedAvg(rounds=self.rounds, local=self.local, sample=self.sample, server=server)
        return averaging.run(theta, fleet, cloud, log)

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run; that of FedAvg."""
        return FedAvg(rounds=self.rounds, local=self.local, sample=self.sample).budget

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedAdam:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
