"""Estimates of training time from training steps that are measured on this machine."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch

from sheaf.core.recipe import Recipe
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.experiments.dry_run import estimate_cost
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.models.checkpoints import load_state
from sheaf.runtime.costs import SiteCost

STEPS = 4
"""Training steps of a site in a repetition; a slow network trains one."""

REPETITIONS = 3
"""Repetitions of which the fastest counts; one for a slow network."""

SLOW = 1.0
"""A network is slow if the first step of all measured sites takes more seconds than this."""

SITES = 8
"""Most sites that are measured."""


def measure_speed(setup: ExperimentSetup, recipe: Recipe, sites: int = 1) -> float:
    """Return the multiply-adds per second with which sites in this process train the whole model.

    The first step also allocates memory and prepares the processor's kernels, so others are measured.

    Args:
        setup: the experiment.
        recipe: how to train.
        sites: the number of sites that train in one call, at most ``SITES``. Small networks train together.
    """
    start, threads = setup.theta, torch.get_num_threads()
    once, blob = replace(recipe, epochs=1), Blob.of(start)
    calls = count(1)

    def train(steps: int, scratch: str) -> tuple[float, float]:
        """Return the seconds of a call in which each site trains ``steps`` steps, and its speed."""
        few = {
            site: (train.select(torch.arange(min(len(train), steps * recipe.batch_size))), held_out)
            for site, (train, held_out) in list(setup.edge_samples.items())[: min(sites, SITES)]
        }
        workers = replace(setup, edge_samples=few).edges(Path(scratch))
        fleet = LocalFleet(workers, together=setup.experiment.fleet.together)
        task = Task("train", next(calls), 0, blob, once, reply=False)
        began = time.perf_counter()
        updates = list(fleet.run(dict.fromkeys(fleet.names(), task)))
        seconds = time.perf_counter() - began
        return seconds, sum(update.cost.train_macs for update in updates) / seconds

    torch.set_num_threads(setup.experiment.fleet.threads or threads)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            slow = train(1, scratch)[0] > SLOW
            steps, repetitions = (1, 1) if slow else (STEPS, REPETITIONS)
            return max(train(steps, scratch)[1] for _ in range(repetitions))
    finally:
        torch.set_num_threads(threads)
        load_state(setup.network.model, start)


@dataclass(frozen=True)
class Estimate:
    """The resources that a run would spend.

    Attributes:
        sites: site -> its cost, without time and memory.
        seconds: site -> seconds of training, from measured steps.
        baselines: seconds of training of all sites in the experiment's baselines.
    """

    sites: dict[str, SiteCost]
    seconds: dict[str, float]
    baselines: float


def estimate(setup: ExperimentSetup) -> Estimate:
    """Return the resources that a run would spend. Only a few steps are trained."""
    recipe = setup.experiment.method.budget.recipe
    at_edges, at_cloud = (measure_speed(setup, recipe, sites) for sites in (len(setup.edge_samples), 1))

    def seconds(sites: dict[str, SiteCost]) -> dict[str, float]:
        return {
            site: cost.train_macs / (at_cloud if site == CLOUD else at_edges) for site, cost in sites.items()
        }

    sites = estimate_cost(setup).sites
    baselines = 0.0
    for name in setup.experiment.baselines:
        experiment = replace(setup.experiment.with_method(name), baselines=())
        baseline = estimate_cost(replace(setup, experiment=experiment)).sites
        baselines += sum(seconds(baseline).values())
    return Estimate(sites, seconds(sites), baselines)
