"""FedRolex: each edge trains a window of every layer's channels, which moves on each round.

FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction.
Samiul Alam, Luyang Liu, Ming Yan, Mi Zhang, 2022. https://arxiv.org/abs/2212.01548
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Recipe
from sheaf.core.settings import settings
from sheaf.methods._rounds import average_parts, budget_of_rounds, rounds_within
from sheaf.methods._training_budget import TrainingBudget
from sheaf.submodels.scheme import Scheme
from sheaf.submodels.schemes.rolling import Rolling


@settings
class FedRolex:
    """Settings of FedRolex; how much each edge can carry is ``fleet.widths``.

    Attributes:
        rounds: how often the edges train and are averaged.
        local: how each edge trains in a round.
        cut: what each edge holds.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    cut: Scheme = Rolling()

    run = average_parts
    budget = property(budget_of_rounds)

    @classmethod
    def within(cls, budget: TrainingBudget) -> FedRolex:
        """As many rounds of one epoch as there are edge epochs."""
        return rounds_within(cls, budget)
