"""Rounds in which every edge trains its sub-model and the sub-models are averaged: HeteroFL and its kin."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from sheaf.core.recipe import Off, Recipe
from sheaf.core.types import Params
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods import _static_batch_norm
from sheaf.methods._server_step import server_step
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.submodels.scheme import Scheme
from sheaf.training.losses.cross_entropy import CrossEntropy
from sheaf.training.losses.restricted_softmax import RestrictedSoftmax
from sheaf.training.losses.scaled import Scaled
from sheaf.training.network import Network


class SubmodelRounds(Protocol):
    """The settings of a method that averages sub-models; ``HeteroFL`` describes them."""

    @property
    def rounds(self) -> int: ...
    @property
    def local(self) -> Recipe: ...
    @property
    def cut(self) -> Scheme: ...
    @property
    def scaler(self) -> bool: ...
    @property
    def masked(self) -> bool: ...
    @property
    def static(self) -> bool: ...
    @property
    def server(self) -> ServerOptimizer | Off: ...


def average_submodels(
    method: SubmodelRounds, theta: Params, fleet: Edges, cloud: Cloud, log: Log, *, by_examples: bool
) -> Params:
    """Return the average of the last round; each edge then holds its sub-model of it.

    A parameter becomes the mean over the edges that hold it. A parameter that no edge holds in a round keeps
    its value.

    Args:
        method: the method.
        theta, fleet, cloud, log: of its run.
        by_examples: weigh an edge by its training examples, not by 1.
    """
    local = method.local
    state: Params = {}
    scales: dict[str, EdgeTensors] | None = None
    if method.masked and isinstance(local.loss, CrossEntropy):
        local = replace(local, loss=RestrictedSoftmax(alpha=0))
    if method.scaler:
        local = replace(local, loss=Scaled(loss=local.loss))
        layers = fleet.compute("parameters of the layers before the classifier", _before_classifier)
        scales = {site.name: _scales(layers, site.width) for site in fleet.needs}
    for n in range(1, method.rounds + 1):
        cuts = fleet.cut(method.cut, n - 1)
        updates = fleet.train(theta, local, cuts=cuts, own=scales)
        mean = fleet.average(theta, updates, by_examples=by_examples, own_rows=method.masked)
        theta, state = server_step(method.server, fleet, theta, mean, state)
        log("average", cloud.evaluate(theta), n)
    own: dict[str, EdgeTensors] = {}
    if method.static:
        theta, own = _static_batch_norm.estimate(theta, fleet, cuts)
        if own:
            log("new statistics", cloud.evaluate(theta), method.rounds)
    fleet.adopt(theta, cuts, own=own)
    log("after update", fleet.evaluate(), method.rounds)
    return theta


def _before_classifier(network: Network) -> dict[str, Tensor]:
    """Return 1 for each weight and bias of the layers whose outputs a cut can reduce."""
    layers = {layer for group in network.structure.groups for layer in group.layers}
    parameters = [name for name, _ in network.model.named_parameters()]
    return {name: torch.ones(()) for name in parameters if name.rpartition(".")[0] in layers}


def _scales(layers: Params, width: float) -> EdgeTensors:
    return EdgeTensors.of({f".scale {name}": value / width for name, value in layers.items()})
