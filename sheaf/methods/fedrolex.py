"""FedRolex: each edge trains a window of every layer's channels, which moves on each round.

FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction.
Samiul Alam, Luyang Liu, Ming Yan, Mi Zhang, 2022. https://arxiv.org/abs/2212.01548
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._submodel_rounds import average_submodels
from sheaf.methods._training_budget import TrainingBudget
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.submodels.scheme import Scheme
from sheaf.submodels.schemes.rolling import Rolling


@settings
class FedRolex:
    """Settings of FedRolex; ``fleet.widths`` sets the width of each edge.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        cut: the scheme that selects the sub-model of each edge in a round.
        scaler: divide layer outputs by the edge's width in training, as ``heterofl`` does.
        masked: train with the masked loss of ``heterofl``. The authors' code has both; the paper has neither.
        static: estimate the statistics of batch norm after the last round, as ``heterofl`` does.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    cut: Scheme = Rolling()
    scaler: bool = False
    masked: bool = False
    static: bool = False
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; see ``average_submodels``."""
        return average_submodels(self, theta, fleet, cloud, log, by_examples=True)

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedRolex:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
