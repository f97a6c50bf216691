"""HeteroFL: each edge trains the first channels of every layer, as many as it can carry.

HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients.
Enmao Diao, Jie Ding, Vahid Tarokh, 2021. https://arxiv.org/abs/2010.01264
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Recipe
from sheaf.core.settings import settings
from sheaf.methods._rounds import average_parts, budget_of_rounds, rounds_within
from sheaf.methods._training_budget import TrainingBudget
from sheaf.submodels.scheme import Scheme
from sheaf.submodels.schemes.prefix import Prefix


@settings
class HeteroFL:
    """Settings of HeteroFL; how much each edge can carry is ``fleet.widths``.

    Attributes:
        rounds: how often the edges train and are averaged.
        local: how each edge trains in a round.
        cut: what each edge holds.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1)
    cut: Scheme = Prefix()

    run = average_parts
    budget = property(budget_of_rounds)

    @classmethod
    def within(cls, budget: TrainingBudget) -> HeteroFL:
        """As many rounds of one epoch as there are edge epochs."""
        return rounds_within(cls, budget)
