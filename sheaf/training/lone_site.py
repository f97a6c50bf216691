"""Training of one site at a time on all cores, such as the cloud. A small network's steps are recorded."""

from __future__ import annotations

import torch

from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe
from sheaf.training import loop, optimizer_state
from sheaf.training.batches import Job, steps_of
from sheaf.training.network import Network
from sheaf.training.one_site import OneSite
from sheaf.training.preparation import Preparation
from sheaf.training.stack_pool import StackPool

LARGEST_STEP = 1_000_000_000
"""Multiply-adds of a training step, at most: a larger step gains nothing."""

LEAST_STEPS = 50
"""Steps of a task, at least: recording takes as long as some twenty."""


class LoneSite:
    """Trains one site after another, with the bits of ``OneSite``.

    ``python -m benchmarks.simulation run --only lone`` compares both.
    """

    def __init__(self) -> None:
        self._stacks = StackPool()

    def __call__(
        self,
        network: Network,
        cut: Cut | None,
        job: Job,
        recipe: Recipe,
        prepare: Preparation,
        progress: loop.Progress | None,
    ) -> loop.Trained:
        """Train a job and return the result, which may share the memory of the network's module."""
        keeps = job.keep_optimizer or optimizer_state.state_among(job.constants)
        if keeps or not _is_worth_recording(network, cut, len(job.samples), recipe, prepare.device):
            return train_plainly(network, cut, job, recipe, prepare, progress)
        with self._stacks.stack((network, cut, recipe), 1, prepare.device) as stack:
            (trained,) = loop.train(stack, [job], recipe, prepare, progress)
        return trained


def train_plainly(
    network: Network,
    cut: Cut | None,
    job: Job,
    recipe: Recipe,
    prepare: Preparation,
    progress: loop.Progress | None,
) -> loop.Trained:
    """Train the network's module in place; the result shares its memory."""
    site = OneSite(network.of(cut), recipe)
    (trained,) = loop.train(site, [job], recipe, prepare, progress)
    return trained._replace(optimizer=site.optimizer_state()) if job.keep_optimizer else trained


def _is_worth_recording(
    network: Network, cut: Cut | None, examples: int, recipe: Recipe, device: torch.device
) -> bool:
    """Return whether recorded steps save time; sub-models differ from site to site."""
    steps = steps_of(recipe, examples)
    small = cut is None and recipe.batch_size * network.macs().train <= LARGEST_STEP
    return device.type == "cpu" and steps >= LEAST_STEPS and small and network.traits().stacks
