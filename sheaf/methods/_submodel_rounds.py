"""Rounds in which every edge trains its sub-model and the sub-models are averaged: HeteroFL and its kin."""

from __future__ import annotations

from dataclasses import replace

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


def average_submodels(
    theta: Params,
    fleet: Edges,
    cloud: Cloud,
    log: Log,
    *,
    rounds: int,
    local: Recipe,
    cut: Scheme,
    server: ServerOptimizer | Off,
    by_examples: bool,
    scaler: bool,
    masked: bool,
    static: bool,
) -> Params:
    """Return the average of the last round; each edge then holds its sub-model of it.

    A parameter becomes the mean over the edges that hold it. A parameter that no edge holds in a round keeps
    its value.

    Args:
        theta, fleet, cloud, log: of the method.
        rounds: the number of rounds.
        local: how each edge trains in a round.
        cut: selects the sub-models of a round.
        server: applies the mean change.
        by_examples: weigh an edge by its training examples, not by 1.
        scaler: divide layer outputs by the edge's width in training.
        masked: set the logits of classes without local examples to 0 in training, where the loss is the
            cross-entropy; the edge counts only in the classifier's rows of its own classes.
        static: estimate the statistics of batch norm after the last round; see ``_static_batch_norm``.
    """
    state: Params = {}
    scales: dict[str, EdgeTensors] | None = None
    if masked and isinstance(local.loss, CrossEntropy):
        local = replace(local, loss=RestrictedSoftmax(alpha=0))
    if scaler:
        local = replace(local, loss=Scaled(loss=local.loss))
        layers = fleet.compute("parameters of the layers before the classifier", _before_classifier)
        scales = {site.name: _scales(layers, site.width) for site in fleet.needs}
    for n in range(1, rounds + 1):
        cuts = fleet.cut(cut, n - 1)
        updates = fleet.train(theta, local, cuts=cuts, own=scales)
        mean = fleet.average(theta, updates, by_examples=by_examples, own_rows=masked)
        theta, state = server_step(server, fleet, theta, mean, state)
        log("average", cloud.evaluate(theta), n)
    own: dict[str, EdgeTensors] = {}
    if static:
        theta, own = _static_batch_norm.estimate(theta, fleet, cuts)
        if own:
            log("new statistics", cloud.evaluate(theta), rounds)
    fleet.adopt(theta, cuts, own=own)
    log("after update", fleet.evaluate(), rounds)
    return theta


def _before_classifier(network: Network) -> dict[str, Tensor]:
    """Return 1 for each weight and bias of the layers whose outputs a cut can reduce."""
    layers = {layer for group in network.structure.groups for layer in group.layers}
    parameters = [name for name, _ in network.model.named_parameters()]
    return {name: torch.ones(()) for name in parameters if name.rpartition(".")[0] in layers}


def _scales(layers: Params, width: float) -> EdgeTensors:
    return EdgeTensors.of({f".scale {name}": value / width for name, value in layers.items()})
