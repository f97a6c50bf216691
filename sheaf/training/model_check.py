"""Compare the ways of training a model, on random numbers, before one other than the plain one is chosen."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.types import Params
from sheaf.models.check import describe
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.loop import TrainingState
from sheaf.training.one_site import OneSite
from sheaf.training.preparation import Preparation
from sheaf.training.seeded_dropout import dropout_from
from sheaf.training.vectorized import Stack

STEP = Recipe(epochs=1, batch_size=2, optimizer="sgd", lr=1e-4, momentum=0.0, precision="float32")
"""A step of a batch of two; so short that differences in rounding do not grow."""

STEPS = 4
"""Steps that are compared: more than are recorded, to find a model that counts its steps."""

ROUNDING = {torch.float64: (1e-6, 1e-13), torch.float32: (5e-2, 1e-6)}
"""Largest difference that is rounding, as a fraction of a tensor's largest change and of its values."""


def why_not_stacked(model: nn.Module, in_shape: tuple[int, int, int], compare: bool) -> str:
    """Return why a stack of sites (``vectorized.Stack``) cannot train ``model``; "" if it can.

    Args:
        model: stays unchanged.
        in_shape: (C, H, W).
        compare: whether to compare the results of a stack of two sites, and of a recorded stack of one, with
            training one by one: in float64, or in float32 if the model converts its inputs to that. False:
            only whether a stack of two sites runs, for models whose results are compared by tests.
    """
    if len(list(model.named_parameters(remove_duplicate=False))) > len(list(model.named_parameters())):
        return "two of its parameters are one tensor"
    if not compare:
        try:
            _train(copy.deepcopy(model).cpu(), 2, _jobs(model, in_shape, torch.float32), STEP, recorded=False)
        except Exception as error:  # a user's network may raise anything
            return describe(error)
        return ""
    recipe = replace(STEP, epochs=STEPS)
    for dtype, rounding in ROUNDING.items():
        own = copy.deepcopy(model).to("cpu", dtype)
        jobs = _jobs(own, in_shape, dtype)
        try:
            alone = [trained for job in jobs for trained in _train(copy.deepcopy(own), None, [job], recipe)]
        except Exception as error:
            failure = describe(error)
            continue  # it may run in float32 only
        for sites, way in ((2, "together"), (1, "as recorded ones")):
            try:
                stacked = _train(own, sites, jobs[:sites], recipe)
            except Exception as error:
                return f"its steps do not run {way}: {describe(error)}"
            if name := _different(jobs[0].start, alone, stacked, rounding):
                return f"its steps lead to another {name} {way}"
        return ""
    return failure


def draws_randomly(model: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Return whether layers of ``model`` other than dropout draw random numbers in training."""
    model = copy.deepcopy(model).cpu().train()
    with torch.random.fork_rng(devices=[]), dropout_from(model, 0), torch.no_grad():
        before = torch.get_rng_state()
        model(torch.zeros(2, *in_shape))
        return not torch.equal(torch.get_rng_state(), before)


class _Unchanged(Preparation):
    """Leaves inputs as they are, in their own type."""

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs


def _jobs(model: nn.Module, in_shape: tuple[int, int, int], dtype: torch.dtype) -> list[Job]:
    """Return the jobs of two sites, of two examples each."""
    draws = generator(0)
    start = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    floating = [value for value in start.values() if value.is_floating_point()]
    if not any(value.any() for value in floating):  # a sub-model into which nothing was loaded
        for value in floating:
            if value.dim() > 1:
                value.normal_(std=prod(value.shape[1:]) ** -0.5, generator=draws)
            else:
                value.uniform_(0.5, 1.5, generator=draws)
    labels = torch.zeros(2, dtype=torch.int64)
    return [
        Job(start, Samples.of(torch.randn(2, *in_shape, generator=draws, dtype=dtype), labels), site)
        for site in range(2)
    ]


def _train(
    model: nn.Module, sites: int | None, jobs: Sequence[Job], recipe: Recipe, *, recorded: bool = True
) -> list[dict[str, Tensor]]:
    """Train in a stack of sites, or the model as it is (None); return the state_dict of each job."""
    prepare = _Unchanged((), (), torch.device("cpu"))
    state: TrainingState = OneSite(model, recipe)
    if sites is not None:
        state = Stack(model, sites, recipe, prepare.device, recorded=recorded)
    return [trained.params for trained in loop.train(state, jobs, recipe, prepare)]


def _different(
    start: Params,
    alone: Sequence[dict[str, Tensor]],
    stacked: Sequence[dict[str, Tensor]],
    rounding: tuple[float, float],
) -> str:
    """Return the name of a tensor that differs beyond rounding; "" if none does."""
    for one, other in zip(alone, stacked, strict=False):
        for name, value in one.items():
            own, theirs, before = value.double(), other[name].double(), start[name].double()
            allowed = rounding[0] * _largest(own - before) + rounding[1] * _largest(own)
            if not torch.allclose(own, theirs, 0.0, allowed, equal_nan=True):
                return name
    return ""


def _largest(values: Tensor) -> float:
    """Return the largest absolute value that is finite."""
    return float(values.abs().nan_to_num(0.0, 0.0).max()) if values.numel() else 0.0
