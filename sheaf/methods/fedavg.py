"""FedAvg: edges train locally, and the cloud averages by number of examples, in each round.

Communication-Efficient Learning of Deep Networks from Decentralized Data.
H. Brendan McMahan, Eider Moore, Daniel Ramage, Seth Hampson, Blaise Agüera y Arcas, 2017.
https://arxiv.org/abs/1602.05629
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Annotated

from pydantic import Field

from sheaf.core.errors import PartitionError
from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._server_step import server_step
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log


@settings
class FedAvg:
    """Settings of FedAvg.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        merge: how the cloud averages.
        only_strong: skip the edges that cannot train the whole model (``fleet.widths`` below 1): the
            baseline for methods that train sub-models there.
        sample: the fraction of the edges that trains in a round (C in the paper), above 0 and at most 1;
            a new random sample each round.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    merge: Merge = WeightedMean()
    only_strong: bool = False
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds it.

        Raises:
            PartitionError: ``only_strong`` leaves no edge.
        """
        able = [site.name for site in fleet.needs if site.width == 1 or not self.only_strong]
        if not able:
            raise PartitionError(
                "method.only_strong leaves no edge: all fleet.widths are below 1; allow one edge a width of 1"
            )
        state: Params = {}
        for n in range(1, self.rounds + 1):
            drawn = able if self.sample == 1 else fleet.sample(able, self.sample)
            local = fleet.train(theta, self.local, only=drawn, statistic=statistic_of(self.merge))
            mean = fleet.merge(self.merge, theta, local)
            theta, state = server_step(self.server, fleet, theta, mean, state)
            log("average", cloud.evaluate(theta), n)
        fleet.adopt(theta)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run; of a sample, the mean over the edges, rounded up to whole epochs."""
        epochs = ceil(self.rounds * self.local.epochs * self.sample)
        return TrainingBudget(recipe=self.local, edge_epochs=epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedAvg:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
