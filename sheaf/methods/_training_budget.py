"""The budget under which methods are compared."""

from __future__ import annotations

from dataclasses import dataclass

from sheaf.core.recipe import Off, Recipe


@dataclass(frozen=True)
class TrainingBudget:
    """An amount of training.

    Attributes:
        recipe: how sites train; its epochs are ignored.
        edge_epochs: the passes of each edge over its own data, at least 0.
        cloud_epochs: the passes of the cloud over its pool, at least 0.
    """

    recipe: Recipe
    edge_epochs: int
    cloud_epochs: int

    @classmethod
    def of_rounds(
        cls, first: Recipe, rounds: int, *, cloud: Recipe | Off, edges: Recipe | Off
    ) -> TrainingBudget:
        """Return the budget of edges that train once, then of the cloud and the edges in each round."""

        def epochs(recipe: Recipe | Off) -> int:
            return 0 if recipe == "none" else recipe.epochs

        return cls(first, first.epochs + rounds * epochs(edges), rounds * epochs(cloud))
