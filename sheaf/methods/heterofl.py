"""HeteroFL: each edge trains the first channels of every layer, up to its width.

HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients.
Enmao Diao, Jie Ding, Vahid Tarokh, 2021. https://arxiv.org/abs/2010.01264
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
from sheaf.submodels.schemes.prefix import Prefix


@settings
class HeteroFL:
    """Settings of HeteroFL; ``fleet.widths`` sets the width of each edge.

    A parameter becomes the plain mean over the edges that hold it (section 3.1). With ``masked``, an edge
    counts only in the classifier's rows of its own classes.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round.
        cut: the scheme that selects the sub-model of each edge in a round.
        scaler: divide layer outputs by the edge's width in training (section 3.3).
        masked: set the logits of classes without local examples to 0 in training, where the loss of ``local``
            is the cross-entropy (section 3.4).
        static: estimate the statistics of batch norm only after the last round, from sums of the edges
            (section 3.2); during training, mini-batches are normalised by their own.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    cut: Scheme = Prefix()
    scaler: bool = True
    masked: bool = True
    static: bool = True
    server: ServerOptimizer | Off = "none"

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the average of the last round; each edge then holds its sub-model of it."""
        return average_submodels(self, theta, fleet, cloud, log, by_examples=False)

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run."""
        return TrainingBudget(recipe=self.local, edge_epochs=self.rounds * self.local.epochs, cloud_epochs=0)

    @classmethod
    def within(cls, budget: TrainingBudget) -> HeteroFL:
        """Return one round of one epoch for each edge epoch of the budget."""
        return cls(rounds=budget.edge_epochs, local=replace(budget.recipe, epochs=1))
