"""What methods are compared under: how much training, where."""

from __future__ import annotations

from dataclasses import dataclass

from sheaf.core.recipe import Recipe


@dataclass(frozen=True)
class TrainingBudget:
    """How many passes each edge makes over its own data, and the cloud over the pool, and by which recipe."""

    recipe: Recipe
    edge_epochs: int
    cloud_epochs: int
