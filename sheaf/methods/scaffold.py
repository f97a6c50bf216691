"""SCAFFOLD: FedAvg whose local gradients are corrected by control variates.

SCAFFOLD: Stochastic Controlled Averaging for Federated Learning. Sai Praneeth Karimireddy, Satyen Kale,
Mehryar Mohri, Sashank J. Reddi, Sebastian U. Stich, Ananda Theertha Suresh, 2020.
https://arxiv.org/abs/1910.06378

The cloud computes an edge's new control variate itself, from the edge's model (option II of the algorithm),
and keeps it. So an edge sends only its model, half of the bytes of the algorithm as written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.recipe import Off, Recipe
from sheaf.core.settings import settings
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.rules.mean import Mean
from sheaf.merges.server_optimizer import ServerOptimizer
from sheaf.methods._server_step import server_step
from sheaf.methods._training_budget import TrainingBudget
from sheaf.methods.fedavg import FedAvg
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.runtime.log import Log
from sheaf.training.batches import steps_of
from sheaf.training.losses.control_variate import ControlVariate
from sheaf.training.network import Network

PLAIN: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant", "average_last": 0.0}
"""The recipe for which the change of an edge's model is its mean gradient times steps and learning rate."""

RATE = 0.05
"""The learning rate of SGD in place of an adaptive optimizer."""


@settings
class Scaffold:
    """Settings of SCAFFOLD.

    Attributes:
        rounds: the number of rounds of training and averaging, at least 1.
        local: how each edge trains in a round: by SGD without momentum, at a constant learning rate.
        sample: the fraction of the edges that trains in a round, above 0 and at most 1.
        server: the optimizer that applies the edges' mean change in the cloud; "none": the mean as it is, a
            global learning rate of 1.
    """

    rounds: Annotated[int, Field(ge=1)] = 10
    local: Recipe = Recipe(epochs=1, optimizer="sgd", momentum=0.0, lr=RATE)
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    server: ServerOptimizer | Off = "none"

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in PLAIN.items() if getattr(self.local, name) != value}
        if wrong:
            given = ", ".join(f"{name} = {getattr(self.local, name)!r}" for name in wrong)
            needed = ", ".join(f"local.{name} = {value!r}" for name, value in wrong.items())
            raise ValueError(f"local has {given}, but control variates need plain SGD: set {needed}")

    def run(self, theta: Params, fleet: Edges, cloud: Cloud, log: Log) -> Params:
        """Return the global model after the last round; each edge then holds it."""
        local = replace(self.local, loss=ControlVariate(loss=self.local.loss))
        names = [site.name for site in fleet.needs]
        c = fleet.compute("control variates of the start", _zeros)
        shapes = {f".correction {name}": value.to("meta") for name, value in c.items()}
        of_edge = dict.fromkeys(names, c)
        state: Params = {}
        for n in range(1, self.rounds + 1):
            drawn = names if self.sample == 1 else fleet.sample(names, self.sample)
            own = {site: _correction(c, of_edge[site], shapes) for site in drawn}
            updates = fleet.train(theta, local, only=drawn, own=own)
            mean = fleet.merge(Mean(), theta, updates)
            before = {update.site: of_edge[update.site] for update in updates}
            for update in updates:
                of_edge[update.site] = self._next(fleet, theta, c, before[update.site], update)
            c = _of_cloud(fleet, c, before, of_edge, len(names))
            theta, state = server_step(self.server, fleet, theta, mean, state)
            log("average", cloud.evaluate(theta), n)
        fleet.adopt(theta)
        log("after update", fleet.evaluate(), self.rounds)
        return theta

    def _next(self, fleet: Edges, theta: Params, c: Params, own: Params, update: Update) -> Params:
        """Return c_i - c + (theta - theta_i) / (K lr), with K steps (algorithm 1, line 12, option II)."""
        work = next(site.work for site in fleet.needs if site.name == update.site)
        steps = steps_of(replace(self.local, work=work * self.local.work), update.examples)

        def compute(_: Network) -> dict[str, Tensor]:
            trained = update.params
            if steps == 0:
                return dict(own)
            scale = 1 / (steps * self.local.lr)
            return {name: own[name] - c[name] + scale * (theta[name] - trained[name]) for name in own}

        return fleet.compute(f"control variate of {update.site}", compute)

    @property
    def budget(self) -> TrainingBudget:
        """The training of a run; that of FedAvg."""
        return FedAvg(rounds=self.rounds, local=self.local, sample=self.sample).budget

    @classmethod
    def within(cls, budget: TrainingBudget) -> Scaffold:
        """Return one round of one epoch for each edge epoch, by SGD without momentum.

        Momentum m becomes a learning rate of lr / (1 - m); Adam becomes SGD with ``RATE``.
        """
        recipe = budget.recipe
        rate = recipe.lr / (1 - recipe.momentum) if recipe.optimizer == "sgd" else RATE
        return cls(rounds=budget.edge_epochs, local=replace(recipe, epochs=1, lr=rate, **PLAIN))


def _zeros(network: Network) -> dict[str, Tensor]:
    return {
        name: torch.zeros(value.shape, dtype=value.dtype)
        for name, value in network.model.named_parameters()
        if value.requires_grad
    }


def _correction(c: Params, own: Params, shapes: Params) -> EdgeTensors:
    """Return c - c_i, the constants of ``ControlVariate``, computed when they are sent."""

    def compute() -> dict[str, Tensor]:
        return {f".correction {name}": value - own[name] for name, value in c.items()}

    return EdgeTensors(f"{blob_of(c).key} {blob_of(own).key}", shapes, compute)


def _of_cloud(
    fleet: Edges, c: Params, before: Mapping[str, Params], after: Mapping[str, Params], edges: int
) -> Params:
    """Return c + sum of the changes of c_i / N (algorithm 1, line 17), summed in float64."""

    def compute(_: Network) -> dict[str, Tensor]:
        sums = {name: value.double() for name, value in c.items()}
        for site, old in before.items():
            new = after[site]
            for name, total in sums.items():
                total += (new[name].double() - old[name].double()) / edges
        return {name: sums[name].to(value.dtype) for name, value in c.items()}

    return fleet.compute("control variate of the cloud", compute)
