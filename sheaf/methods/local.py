"""Each edge trains alone and sends no model and no data: the baseline without collaboration."""

from __future__ import annotations

from dataclasses import replace

from sheaf.core.recipe import Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log


@settings
class Local:
    """Settings of local training.

    Attributes:
        train: how each edge trains on its own data.
    """

    train: Recipe = Recipe(epochs=10)

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> None:
        """Train a model on each edge; the cloud has none."""
        fleet.train(theta, self.train, reply=False)
        log("alone", fleet.evaluate())

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget(recipe=self.train, edge_epochs=self.train.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> Local:
        """Return the same number of edge epochs."""
        return cls(train=replace(budget.recipe, epochs=budget.edge_epochs))
