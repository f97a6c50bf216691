"""Rounds in which every edge trains its sub-model and the sub-models are averaged: HeteroFL and FedRolex."""

from __future__ import annotations

from sheaf.core.recipe import Recipe
from sheaf.core.types import Params
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edges import Edges
from sheaf.runtime.result import Log
from sheaf.submodels.scheme import Scheme


def average_submodels(
    theta: Params, fleet: Edges, cloud: Cloud, log: Log, *, rounds: int, local: Recipe, cut: Scheme
) -> Params:
    """Return the average of the last round; each edge then holds its sub-model of it.

    A parameter becomes the mean over the edges that hold it, weighted by their numbers of examples. A
    parameter that no edge holds in a round keeps its value.
    """
    for n in range(1, rounds + 1):
        cuts = fleet.cut(cut, n - 1)
        updates = fleet.train(theta, local, cuts=cuts)
        theta = fleet.average(theta, updates, by_examples=True)
        log("average", cloud.evaluate(theta), n)
    fleet.adopt(theta, cuts)
    log("after update", fleet.evaluate(), rounds)
    return theta
