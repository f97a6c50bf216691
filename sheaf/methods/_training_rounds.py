"""One training of the edges, divided into communication rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sheaf.core.recipe import Part, Recipe, Statistic
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update, named_statistic
from sheaf.core.types import Params
from sheaf.merges.merge import Merge, statistic_of
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.training import optimizer_state
from sheaf.training.network import Network
from sheaf.training.optimizers import rates_of_parts


def check_rounds(rounds: int, merge: Merge) -> None:
    """Check that an update has one statistic: that of the merge, or the state of the optimizer.

    Raises:
        ValueError: the merge has a statistic, and the training has several rounds.
    """
    if rounds > 1 and statistic_of(merge) is not None:
        raise ValueError(
            f"pretrain_rounds = {rounds} sends the state of the optimizer with each model, so merge can have "
            'no statistic of its own: set pretrain_rounds = 1 or another merge, such as "mean"'
        )


def train_in_rounds(
    theta: Params, fleet: Edges, recipe: Recipe, rounds: int, merge: Merge, *, own_start: bool
) -> tuple[Params, list[Update]]:
    """Return the model from which the edges begin the last round, and their updates of this round.

    After each round but the last, the models are merged. All edges continue with the result, each with the
    state of its own optimizer, which the cloud keeps for it: an edge that misses a round takes part again.

    Args:
        theta: the model from which they begin the first round.
        fleet: the edges.
        recipe: of the whole training; see ``recipes_of_rounds``.
        rounds: the number of rounds, at least 1.
        merge: of the models between two rounds.
        own_start: initialise each edge separately instead of with ``theta``.
    """
    first, *later = recipes_of_rounds(recipe, rounds, fleet.seed("order"))
    state = optimizer_state.statistic_of(recipe) if later else None
    statistic = state or statistic_of(merge)
    local = fleet.train(theta, first, own_start=own_start, statistic=statistic)
    own: dict[str, EdgeTensors] = {}
    for each in later:
        theta = fleet.merge(merge, theta, local)
        if state is not None:
            own |= {update.site: _state_of(fleet, update, state) for update in local}
        local = fleet.train(theta, each, statistic=statistic, own=own)
    return theta, local


def _state_of(fleet: Edges, update: Update, state: Statistic) -> EdgeTensors:
    """Return the state of the edge's optimizer, for the edge to continue with."""

    def compute(_: Network) -> Params:
        return named_statistic(state.kind, update.statistics)

    found = fleet.compute(f"optimizer of {update.site}", compute)
    meta = {name: value.to("meta") for name, value in found.items()}
    return EdgeTensors(blob_of(found).key, meta, lambda: found)


def recipes_of_rounds(recipe: Recipe, rounds: int, order: int) -> Iterator[Recipe]:
    """Yield the recipe of each of ``rounds`` equal parts of a training; of one part, the recipe itself.

    The learning rate is constant within a part: the schedule's in its middle. Weights are averaged in the
    last part only.

    Args:
        recipe: of the whole training.
        rounds: the number of parts.
        order: see ``Part``. With a new order in each part, an edge would see some examples less often.
    """
    if rounds == 1:
        yield recipe
        return
    for n, lr in enumerate(rates_of_parts(recipe, rounds), 1):
        average_last = recipe.average_last if n == rounds else 0.0
        part = Part(n=n, of=rounds, order=order)
        yield replace(recipe, part=part, lr=lr, schedule="constant", average_last=average_last)
