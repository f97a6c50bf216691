"""FedProx: FedAvg whose local loss keeps each edge near the global model.

Federated Optimization in Heterogeneous Networks. Tian Li, Anit Kumar Sahu, Manzil Zaheer, Maziar Sanjabi,
Ameet Talwalkar, Virginia Smith, 2020. https://arxiv.org/abs/1812.06127
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.methods._training_budget import TrainingBudget
from sheaf.methods.fedavg import FedAvg
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.training.losses.proximal import Proximal


@settings
class FedProx:
    """Settings of FedProx: ``fedavg`` with the loss ``proximal``, around the loss of ``local``.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        mu: strength of the proximal term, above 0.
        sample: the fraction of the edges that trains in a round, above 0 and at most 1.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    mu: Annotated[float, Field(gt=0)] = 0.01
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds it."""
        local = replace(self.local, loss=Proximal(mu=self.mu, loss=self.local.loss))
        return FedAvg(rounds=self.rounds, local=local, sample=self.sample).run(theta, fleet, cloud, log)

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run; that of FedAvg."""
        return FedAvg(rounds=self.rounds, local=self.local, sample=self.sample).budget

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedProx:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
