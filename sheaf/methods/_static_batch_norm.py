"""Static batch normalisation of HeteroFL: statistics that are estimated once, for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.recipe import Statistic
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.training.batch_norm import from_sums
from sheaf.training.network import Network

BATCH_NORM = Statistic("batch_norm")


def estimate(theta: Params, fleet: Edges, cuts: Mapping[str, Cut]) -> tuple[Params, dict[str, EdgeTensors]]:
    """Return the global model, and edge -> tensors of its sub-model, with new batch-norm statistics.

    Training normalises by mini-batches. Statistics that it leaves belong to networks of several widths, so
    they are replaced: those of a sub-model by sums over the data of all edges that hold it, those of the
    global model by sums of the edges that hold it whole; without such an edge they stay.

    Args:
        theta: the global model.
        fleet: the edges, which compute one forward pass each and send sums.
        cuts: edge -> its sub-model.
    """
    alike: dict[Cut, list[Update]] = {}
    for update in fleet.summarize(theta, BATCH_NORM, cuts):
        alike.setdefault(cuts[update.site], []).append(update)
    own: dict[str, EdgeTensors] = {}
    for cut, updates in alike.items():
        statistics = _statistics(fleet, updates)
        if cut == Cut():
            theta = _with(fleet, theta, statistics)
        shapes = {name: value.to("meta") for name, value in statistics.items()}
        for update in updates:
            own[update.site] = EdgeTensors(blob_of(statistics).key, shapes, partial(dict, statistics))
    return theta, own


def _statistics(fleet: Edges, updates: list[Update]) -> Params:
    total = fleet.total(updates, BATCH_NORM)
    return fleet.compute("statistics of batch norm", lambda _: from_sums(total))


def _with(fleet: Edges, theta: Params, statistics: Params) -> Params:
    def compute(_: Network) -> dict[str, Tensor]:
        return {**theta, **statistics}

    return fleet.compute("global model with static batch norm", compute)
