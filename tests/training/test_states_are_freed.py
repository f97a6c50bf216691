"""A training state is freed with its last reference: a later run in the process finds its memory free."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from striped_digits import PREPARE, bits, linear, samples

from sheaf.core.recipe import Recipe
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.one_site import OneSite
from sheaf.training.vectorized import Stack

STATES: dict[str, tuple[int, Callable[[Recipe], loop.TrainingState]]] = {
    "stack": (2, lambda recipe: Stack(linear(), 2, recipe, torch.device("cpu"))),
    "one site": (1, lambda recipe: OneSite(linear(), recipe)),
}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", STATES)
def test_a_state_is_freed_without_the_garbage_collector(name: str, schedule: str) -> None:
    recipe = Recipe(epochs=2, batch_size=16, schedule=schedule)
    sites, make = STATES[name]
    state = make(recipe)
    gc.disable()
    try:
        loop.train(state, [Job(bits(linear()), samples(), seed) for seed in range(sites)], recipe, PREPARE)
        reference = weakref.ref(state)
        del state
        assert reference() is None
    finally:
        gc.enable()
