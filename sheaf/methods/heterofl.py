"""HeteroFL: each edge trains the first channels of every layer, as many as it can carry.

HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients.
Enmao Diao, Jie Ding, Vahid Tarokh, 2021. https://arxiv.org/abs/2010.01264
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sheaf.budget import Budget
from sheaf.cuts.prefix import Prefix
from sheaf.methods._rounds import average_parts, budget_of_rounds, rounds_within
from sheaf.schema import Scheme
from sheaf.types import Recipe, settings


@settings
class HeteroFL:
    """Settings of HeteroFL; how much each edge can carry is ``fleet.shares``.

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
    def within(cls, budget: Budget) -> HeteroFL:
        """As many rounds of one epoch as there are edge epochs."""
        return rounds_within(cls, budget)
