"""Toy networks and data for comparing ways of training: sites together against one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import toys
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation
from sheaf.training.vectorized import Stack

CPU = torch.device("cpu")
UNEQUAL = (37, 50, 17, 8, 33)
"""Examples of five sites: different steps, different last batches, of 8 and of 9."""


class Exact(Preparation):
    """The same in float64."""

    def __call__(self, inputs: Tensor) -> Tensor:
        return super().__call__(inputs).double()


def prepare(dtype: torch.dtype, channels: int = 1) -> Preparation:
    kind = Exact if dtype == torch.float64 else Preparation
    return kind((0.4,) * channels, (0.2,) * channels, CPU)


def parts(sizes: tuple[int, ...], shape: tuple[int, int, int], classes: int = 4) -> list[Samples]:
    """Of one pool, which sites share."""
    draws, total = generator(2), sum(sizes)
    inputs = torch.randint(256, (total, *shape), generator=draws, dtype=torch.uint8)
    pool = Samples.of(inputs, torch.randint(classes, (total,), generator=draws))
    return [pool.select(own) for own in torch.randperm(total, generator=draws).split(sizes)]


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
    )


class Twice(nn.Module):
    """One layer used twice: the gradients of its weight add up. Frozen are a bias and a constant buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 4, bias=False)
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x.flatten(1)).relu()
        return self.last(self.again(self.again(y).relu() * self.scale))


def both(
    model: nn.Module, own: list[Samples], recipe: Recipe, dtype: torch.dtype, channels: int = 1
) -> tuple[list[tuple[dict[str, Tensor], list[float]]], ...]:
    """(stacked, one by one), from start weights that differ."""
    model = toys.randomised(model).to(dtype)
    starts = [
        {name: value.clone() for name, value in toys.randomised(model, seed).to(dtype).state_dict().items()}
        for seed in range(len(own))
    ]
    jobs = [Job(start, samples, 5 + k) for k, (start, samples) in enumerate(zip(starts, own, strict=True))]
    together = train_stacked(model, jobs, recipe, prepare(dtype, channels))
    alone = []
    for job in jobs:
        model.load_state_dict(job.start)
        losses = train_model(model, job.samples, recipe, prepare(dtype, channels), job.seed)
        alone.append(({name: value.clone() for name, value in model.state_dict().items()}, losses))
    return together, alone


def assert_alike(
    one: list[tuple[dict[str, Tensor], list[float]]],
    other: list[tuple[dict[str, Tensor], list[float]]],
    tolerance: float,
) -> None:
    for (params, losses), (expected, their_losses) in zip(one, other, strict=True):
        assert params.keys() == expected.keys()
        assert losses == pytest.approx(their_losses, rel=tolerance)
        for name, value in params.items():
            if not value.is_floating_point():
                assert torch.equal(value, expected[name]), name
            else:
                off = (value - expected[name]).norm()
                assert off <= tolerance * expected[name].norm().clamp(min=1e-3), name


def train_stacked(
    model: nn.Module, jobs: Sequence[Job], recipe: Recipe, prepare: Preparation
) -> list[tuple[dict[str, Tensor], list[float]]]:
    """Train the jobs in one stack; return the parameters and the losses of each."""
    trained = loop.train(Stack(model, len(jobs), recipe, prepare.device), jobs, recipe, prepare)
    return [(each.params, each.losses) for each in trained]
