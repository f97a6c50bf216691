"""FedAvg: edges train locally, the cloud averages by number of examples, again and again.

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
from sheaf.core.recipe import Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.merges.rules.weighted_mean import WeightedMean
from sheaf.methods._rounds import budget_of_rounds, rounds_within
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.result import Log


@settings
class FedAvg:
    """Settings of FedAvg.

    Attributes:
        rounds: how often the edges train and are averaged.
        local: how each edge trains in a round.
        merge: how the cloud averages.
        only_strong: leave out the edges that cannot carry the whole model (``fleet.widths`` below 1), which
            at times beats giving them a part of it.
        sample: the share of the edges (C in the paper) that trains in a round, drawn anew for each.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    merge: Merge = WeightedMean()
    only_strong: bool = False
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Returns the average of the last round, which every edge then holds.

        Raises:
            PartitionError: only strong edges are asked for, and there are none.
        """
        asked = [site.name for site in fleet.needs if site.width == 1 or not self.only_strong]
        if not asked:
            raise PartitionError("method.only_strong leaves no edge: fleet.widths has all below 1")
        for n in range(1, self.rounds + 1):
            drawn = asked if self.sample == 1 else fleet.sample(asked, self.sample)
            local = fleet.train(theta, self.local, only=drawn, statistic=statistic_of(self.merge))
            theta = fleet.merge(self.merge, theta, local)
            log("average", cloud.evaluate(theta), n)
        fleet.adopt(theta)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """What a run trains: of a sample, what an edge trains on average, to the next whole epoch."""
        every = budget_of_rounds(self)
        return replace(every, edge_epochs=ceil(every.edge_epochs * self.sample))

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedAvg:
        """As many rounds of one epoch as there are edge epochs."""
        return rounds_within(cls, budget)
