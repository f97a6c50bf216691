"""Each edge alone: what collaboration has to beat. Nothing is sent."""

from __future__ import annotations

from dataclasses import replace

from sheaf.budget import Budget
from sheaf.record import Log
from sheaf.sites import Cloud, Edges
from sheaf.types import Params, Recipe, settings


@settings
class Local:
    """Settings of training alone: ``train`` is how each edge trains on its own data."""

    train: Recipe = Recipe(epochs=10)

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> None:
        """Leaves a model on each edge and none in the cloud."""
        fleet.train(theta, self.train, reply=False)
        log("alone", fleet.evaluate())

    @property
    def budget(self) -> Budget:
        """What a run trains."""
        return Budget(recipe=self.train, edge_epochs=self.train.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: Budget) -> Local:
        """The same edge epochs."""
        return cls(train=replace(budget.recipe, epochs=budget.edge_epochs))
