"""The order of a recorded step: updates fused with the gradients, after each site's gradient, or at the end.

``training/fused_update`` and ``training/update_by_site`` order the step. Stacks of each depth take turns, a
step at a time.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.simulation.jobs import JOBS, SEED
from sheaf.core.dataset import Samples
from sheaf.models.zoo.mlp import mlp
from sheaf.training import replay
from sheaf.training.batches import Job
from sheaf.training.preparation import Preparation
from sheaf.training.vectorized import Stack

DEPTHS = (8, 16)
"""Sites of a stack."""

STEPS = 300
"""Steps of each stack after the recording."""

ORDERS = ("fused", "by_site", "at_end")


def ordered() -> dict[str, Any]:
    """Return the row: microseconds of processor time for each site of a step, in every order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(SEED)
    x = torch.randn(max(DEPTHS), 10, 1, 28, 28, generator=draws)
    labels = torch.randint(0, 10, (max(DEPTHS), 10), generator=draws)
    with ExitStack() as begun:
        stacks = {
            (depth, order): _recorded(depth, order, x[:depth], labels[:depth], begun)
            for depth in DEPTHS
            for order in ORDERS
        }
        times: dict[tuple[int, str], list[float]] = {key: [] for key in stacks}
        for _ in range(STEPS):
            for (depth, order), stack in stacks.items():
                began = time.thread_time()
                stack.steps(x[None, :depth], labels[None, :depth])
                times[depth, order].append(1e6 * (time.thread_time() - began) / depth)
    torch.set_num_threads(before)
    quartiles = {key: statistics.quantiles(each) for key, each in times.items()}
    return {
        "job": "the order of a stack's step",
        "depths": {
            str(depth): {
                "quartiles_us": {order: quartiles[depth, order] for order in ORDERS},
                "vs_at_end": quartiles[depth, "at_end"][1] / quartiles[depth, "fused"][1],
            }
            for depth in DEPTHS
        },
    }


def _recorded(depth: int, order: str, x: Tensor, labels: Tensor, begun: ExitStack) -> Stack:
    """Return a stack of the first job's network and recipe that has recorded its step in this order."""
    recipe = next(iter(JOBS.values())).experiment("cpu").method.local
    model, device = mlp(10, (1, 28, 28)), torch.device("cpu")
    samples = Samples.of(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    jobs = [Job(model.state_dict(), samples, seed) for seed in range(depth)]
    stack = Stack(model, depth, recipe, device)
    begun.enter_context(stack.begin(jobs, Preparation((0.1,), (0.3,), device), 1))
    left_out = {"fused": (), "by_site": ("fuse_updates",), "at_end": ("fuse_updates", "update_by_site")}
    with ExitStack() as changes:
        for name in left_out[order]:
            changes.enter_context(mock.patch.object(replay, name, lambda operations, kept: operations))
        stack.steps(x[None], labels[None])  # recorded here
    return stack
