"""One training of the edges, divided into communication rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sheaf.core.recipe import Recipe
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.runtime.edges import Edges
from sheaf.training.optimizers import rates_of_parts


def train_in_rounds(
    theta: Params, fleet: Edges, recipe: Recipe, rounds: int, merge: Merge, *, own_start: bool
) -> tuple[Params, list[Update]]:
    """Return the model from which the edges begin the last round, and their updates of this round.

    Args:
        theta: the model from which they begin the first round.
        fleet: the edges.
        recipe: of the whole training; see ``recipes_of_rounds``.
        rounds: the number of rounds, at least 1.
        merge: of the models between two rounds.
        own_start: initialise each edge separately instead of with ``theta``.
    """
    first, *later = recipes_of_rounds(recipe, rounds)
    statistic = statistic_of(merge)
    local = fleet.train(theta, first, own_start=own_start, statistic=statistic)
    for each in later:
        theta = fleet.merge(merge, theta, local)
        local = fleet.train(theta, each, statistic=statistic)
    return theta, local


def recipes_of_rounds(recipe: Recipe, rounds: int) -> Iterator[Recipe]:
    """Yield the recipe of each of ``rounds`` equal parts of a training; of one part, the recipe itself.

    An edge keeps no state of the optimizer from one part to the next. So the learning rate is constant within
    a part: the schedule's in its middle. Weights are averaged in the last part only. The number of
    mini-batches of a part is rounded up.
    """
    if rounds == 1:
        yield recipe
        return
    for n, lr in enumerate(rates_of_parts(recipe, rounds), 1):
        average_last = recipe.average_last if n == rounds else 0.0
        yield replace(
            recipe, work=recipe.work / rounds, lr=lr, schedule="constant", average_last=average_last
        )
