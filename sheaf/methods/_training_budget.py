"""The budget under which methods are compared."""

from __future__ import annotations

from dataclasses import dataclass

from sheaf.core.recipe import Recipe


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
