"""What FedAvg, HeteroFL and FedRolex share: rounds of local training, merged by coverage."""

from __future__ import annotations

from sheaf.cut import bind
from sheaf.record import Log
from sheaf.schema import Scheme
from sheaf.sites import Cloud, Edges
from sheaf.types import Params, Recipe


def average_parts(
    theta: Params, fleet: Edges, cloud: Cloud, log: Log, *, cut: Scheme, rounds: int, local: Recipe
) -> Params:
    """In each round every edge trains its part of ``theta``, and the parts are merged.

    Each coordinate becomes the mean over the edges that hold it, weighted by their examples; what no edge
    holds in a round stays as it is. At the end every edge holds its part.
    """
    for n in range(1, rounds + 1):
        cuts = fleet.cut(cut, n - 1)
        updates = fleet.train(theta, local, cuts=cuts)
        theta = bind(theta, fleet.parts(updates, by_examples=True), fill="keep")
        log("average", cloud.evaluate(theta), n)
    fleet.adopt(theta, cuts)
    log("after update", fleet.evaluate(), rounds)
    return theta
