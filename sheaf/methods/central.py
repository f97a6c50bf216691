"""All data in the cloud: what collaboration is measured against. The edges train nothing."""

from __future__ import annotations

from dataclasses import replace

from sheaf.core.recipe import Recipe, Share
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.result import Log


@settings
class Central:
    """Settings of central training.

    Attributes:
        train: how the cloud trains on the combined data.
        share: what of each edge's training samples the combined data holds.
    """

    train: Recipe = Recipe(epochs=10)
    share: Share = Share()

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Returns what the cloud trained, which the edges then hold too."""
        cloud.pool(fleet.share(self.share))
        theta = cloud.train(theta, self.train)
        log("central", cloud.evaluate(theta))
        fleet.adopt(theta)
        log("after update", fleet.evaluate())
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """What a run trains."""
        return TrainingBudget(recipe=self.train, edge_epochs=0, cloud_epochs=self.train.epochs)

    @classmethod
    def within(cls, budget: TrainingBudget) -> Central:
        """As many passes over the data as edges and cloud make together."""
        return cls(train=replace(budget.recipe, epochs=budget.edge_epochs + budget.cloud_epochs))
