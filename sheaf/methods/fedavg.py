"""FedAvg: edges train locally, the cloud averages by number of examples, again and again.

Communication-Efficient Learning of Deep Networks from Decentralized Data.
H. Brendan McMahan, Eider Moore, Daniel Ramage, Seth Hampson, Blaise Agüera y Arcas, 2017.
https://arxiv.org/abs/1602.05629
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.budget import Budget
from sheaf.merges.weighted_mean import WeightedMean
from sheaf.record import Log
from sheaf.schema import Merge
from sheaf.sites import Cloud, Edges
from sheaf.types import Params, Recipe, settings


@settings
class FedAvg:
    """Settings of FedAvg.

    Attributes:
        rounds: how often the edges train and are averaged.
        local: how each edge trains in a round.
        merge: how the cloud averages.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    merge: Merge = WeightedMean()

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Returns the average of the last round."""
        for n in range(1, self.rounds + 1):
            theta = self.merge(theta, fleet.train(theta, self.local))
            log("average", cloud.evaluate(theta), n)
        fleet.adopt(theta)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> Budget:
        """What a run trains."""
        return Budget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: Budget) -> FedAvg:
        """As many rounds of one epoch as there are edge epochs."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
