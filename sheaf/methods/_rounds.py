"""What FedAvg, HeteroFL and FedRolex share: rounds of local training, then a mean by coverage."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypeVar

from sheaf.core.recipe import Recipe
from sheaf.core.types import Params
from sheaf.merges.average import average
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.result import Log
from sheaf.submodels.scheme import Scheme


class Rounds(Protocol):
    """A method that trains for so many rounds, by ``local`` in each."""

    @property
    def rounds(self) -> int:
        """How often the edges train and are averaged."""
        ...

    @property
    def local(self) -> Recipe:
        """How each edge trains in a round."""
        ...


class RoundsOfParts(Rounds, Protocol):
    """The same, each edge training a part."""

    @property
    def cut(self) -> Scheme:
        """What each edge holds in a round."""
        ...


_R = TypeVar("_R", bound=Rounds)


def average_parts(self: RoundsOfParts, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
    """In each round every edge trains its part of ``theta``, and the parts are merged.

    Each coordinate becomes the mean over the edges that hold it, weighted by their examples; what no edge
    holds in a round stays as it is. At the end every edge holds its part. Returns the last merge.
    """
    for n in range(1, self.rounds + 1):
        cuts = fleet.cut(self.cut, n - 1)
        updates = fleet.train(theta, self.local, cuts=cuts)
        theta = average(theta, fleet.contributions(updates, by_examples=True))
        log("average", cloud.evaluate(theta), n)
    fleet.adopt(theta, cuts)
    log("after update", fleet.evaluate(), self.rounds)
    return theta


def budget_of_rounds(self: Rounds) -> TrainingBudget:
    """What a run trains."""
    return TrainingBudget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)


def rounds_within(cls: type[_R], budget: TrainingBudget) -> _R:
    """As many rounds of one epoch as there are edge epochs."""
    return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))  # type: ignore[call-arg]
