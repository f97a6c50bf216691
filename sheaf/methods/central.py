"""The cloud trains on the pooled data of all edges: the baseline without any distribution."""

from __future__ import annotations

from dataclasses import replace

from sheaf.core.recipe import Recipe, Share
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log


@settings
class Central:
    """Settings of central training.

    Attributes:
        train: how the cloud trains on the pool.
        share: the samples that each edge sends to the pool; all by default.
    """

    train: Recipe = Recipe(epochs=10)
    share: Share = Share()

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the model trained by the cloud; the edges then hold it too."""
        cloud.pool(fleet.share(self.share))
        theta = cloud.train(theta, self.train)
        log("central", cloud.evaluate(theta))
        fleet.adopt(theta)
        log("after update", fleet.evaluate())
        return theta

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget(recipe=self.train, edge_epochs=0, cloud_epochs=self.train.epochs)

    @classmethod
    def within(cls, budget: TrainingBudget) -> Central:
        """Return the sum of the edge and cloud epochs, on the pool."""
        return cls(train=replace(budget.recipe, epochs=budget.edge_epochs + budget.cloud_epochs))
