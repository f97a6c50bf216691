"""FedRolex: each edge trains a window of every layer's channels, which moves on each round.

FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction.
Samiul Alam, Luyang Liu, Ming Yan, Mi Zhang, 2022. https://arxiv.org/abs/2212.01548
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.budget import Budget
from sheaf.cuts.rolling import Rolling
from sheaf.methods._rounds import average_parts
from sheaf.record import Log
from sheaf.schema import Scheme
from sheaf.sites import Cloud, Edges
from sheaf.types import Params, Recipe, settings


@settings
class FedRolex:
    """Settings of FedRolex; how much each edge can carry is ``fleet.shares``.

    Attributes:
        rounds: how often the edges train and are averaged.
        local: how each edge trains in a round.
        cut: what each edge holds.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    cut: Scheme = Rolling()

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Returns the average of the last round."""
        return average_parts(theta, fleet, cloud, log, cut=self.cut, rounds=self.rounds, local=self.local)

    @property
    def budget(self) -> Budget:
        """What a run trains."""
        return Budget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: Budget) -> FedRolex:
        """As many rounds of one epoch as there are edge epochs."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
