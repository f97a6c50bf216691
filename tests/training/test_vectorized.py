"""Sites trained as one end with what they end with alone, but for the order of floating-point sums."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import toys
from torch import nn
from toy_training import (
    CPU,
    UNEQUAL,
    Twice,
    assert_alike,
    both,
    convolutional,
    linear,
    parts,
    prepare,
    train_stacked,
)

from sheaf.core import registry
from sheaf.core.recipe import Recipe
from sheaf.training import loop, model_check, vectorized
from sheaf.training.batches import Job, batch_sizes
from sheaf.training.one_site import train_model
from sheaf.training.seeded_dropout import drops

RECIPES = [
    Recipe(
        epochs=2,
        batch_size=8,
        optimizer=optimizer,
        schedule=schedule,
        lr=0.01,
        weight_decay=0.01,
        augment=augment,
        average_last=tail,
    )
    for optimizer, schedule, (augment, tail) in itertools.product(
        ("sgd", "adam", "adamw"), ("constant", "cosine", "onecycle"), (((), 0.0), (("flip", "crop"), 0.4))
    )
]


@pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda r: f"{r.optimizer}-{r.schedule}{'-'.join(('', *r.augment))}"
)
@pytest.mark.parametrize("make", [linear, convolutional, Twice])
def test_every_recipe_in_float64(make, recipe: Recipe) -> None:
    # What has to be equal is told by ``together``: all examples for batch norm, all steps for a schedule.
    sizes = (
        (33, 33, 33) if make is convolutional else UNEQUAL if recipe.schedule == "constant" else (37, 34, 40)
    )
    keys = {vectorized.compatibility(make(), n, recipe) for n in sizes}
    assert len(keys) == 1
    assert_alike(*both(make(), parts(sizes, (1, 8, 8)), recipe, torch.float64), 1e-9)


@pytest.mark.parametrize("make", [linear, convolutional, Twice])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_in_float32(make, optimizer: str) -> None:
    recipe = Recipe(epochs=1, batch_size=8, optimizer=optimizer, lr=0.001)
    sizes = (33, 33, 33) if make is convolutional else UNEQUAL
    assert_alike(*both(make(), parts(sizes, (1, 8, 8)), recipe, torch.float32), 1e-4)


@pytest.mark.parametrize("make", toys.EVERY)
def test_every_way_of_coupling(make) -> None:
    model = make()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    recipe = Recipe(epochs=1, batch_size=8, optimizer="sgd", lr=0.01)
    own = parts((20, 20, 20), toys.SHAPE, 5)
    assert_alike(*both(model, own, recipe, torch.float64, channels=3), 1e-9)


@pytest.mark.parametrize("name", list(registry.describe("models")))
def test_every_model(name: str) -> None:
    """In float64; without dropout, with which it would not be stacked; at most 64 channels in a group."""
    side = 64 if name in ("alexnet", "mobilenet_v2", "resnet50") else 32  # these end in 1x1 maps of 32x32
    shape = (1 if name == "kws_cnn" else 3, side, side)
    model = toys.randomised(toys.thinned(name, 4, shape)).train()
    assert not model_check.draws_randomly(model, shape)
    assert bool(model_check.why_not_stacked(model, shape, compare=False)) == drops(model)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    model.double()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    recipe = Recipe(epochs=1, batch_size=3, optimizer="sgd", lr=1e-4, momentum=0.5)
    jobs = [Job(start, samples, k) for k, samples in enumerate(parts((3, 3), shape))]
    together = train_stacked(model, jobs, recipe, prepare(torch.float64, shape[0]))
    alone = []
    for job in jobs:
        model.load_state_dict(start)
        losses = train_model(model, job.samples, recipe, prepare(torch.float64, shape[0]), job.seed)
        alone.append(({key: value.clone() for key, value in model.state_dict().items()}, losses))
    assert_alike(together, alone, 1e-9)


def test_a_site_that_is_done_moves_no_more() -> None:
    """Weight decay and momentum would move it, a batch norm's statistics too."""
    recipe = Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.01, weight_decay=0.1)
    own = parts((8, 80), (1, 8, 8))
    (short, long), alone = both(linear(), own, recipe, torch.float64)
    assert_alike([short, long], alone, 1e-9)
    assert len(short[1]) == len(long[1]) == 2


def test_progress_tells_of_every_sites_last_step() -> None:
    told: dict[int, tuple[int, int]] = {}
    model = linear()
    jobs = [Job(model.state_dict(), samples, 0) for samples in parts(UNEQUAL, (1, 8, 8))]
    stack = vectorized.Stack(model, len(jobs), Recipe(batch_size=8), CPU)
    recipe, told_last = Recipe(batch_size=8), lambda k, *step: told.update({k: step[:2]})
    loop.train(stack, jobs, recipe, prepare(torch.float32), told_last)
    assert told == {k: (len(batch_sizes(n, 8)),) * 2 for k, n in enumerate(UNEQUAL)}


def test_the_network_and_the_global_generator_are_left_alone() -> None:
    model = convolutional()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    jobs = [Job(before, samples, 0) for samples in parts((8, 8), (1, 8, 8))]
    recipe = Recipe(augment=("flip", "crop"))
    first = train_stacked(model, jobs, recipe, prepare(torch.float32))
    again = train_stacked(model, jobs, recipe, prepare(torch.float32))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for (one, _), (other, _) in zip(first, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [linear, convolutional])
def test_a_stack_is_used_for_one_set_of_sites_after_another(make) -> None:
    recipe = Recipe(epochs=2, batch_size=8, optimizer="adam", lr=0.01)
    stack = vectorized.Stack(make(), 3, recipe, CPU)
    for seed in range(3):
        start = toys.randomised(make(), seed).state_dict()
        jobs = [Job(start, own, seed + k) for k, own in enumerate(parts((40, 40, 40), (1, 8, 8)))]
        found = loop.train(stack, jobs, recipe, prepare(torch.float32))
        anew = train_stacked(make(), jobs, recipe, prepare(torch.float32))
        for own, (other, expected) in zip(found, anew, strict=True):
            assert own.losses == expected
            assert all(torch.equal(own.params[name], other[name]) for name in other)


def test_sites_with_labels_of_their_own() -> None:
    """A part's outputs are for its site's classes, so each site reads the same image by other labels."""
    own = parts((20, 20), (1, 8, 8))
    own[1] = replace(own[1], targets=(own[1].targets + 1) % 4)
    assert_alike(*both(linear(), own, Recipe(batch_size=8), torch.float64), 1e-9)


@pytest.mark.parametrize("make", [linear, convolutional, Twice])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_stack_of_one_ends_with_the_same_bits(make, optimizer: str) -> None:
    recipe = Recipe(epochs=3, batch_size=8, optimizer=optimizer, lr=0.01, augment=("flip",), average_last=0.4)
    together, alone = both(make(), parts((37,), (1, 8, 8)), recipe, torch.float32)
    assert together[0][1] == alone[0][1]
    for name, value in together[0][0].items():
        assert torch.equal(value, alone[0][0][name]), name


def test_a_fraction_of_the_work_trains_together_as_alone() -> None:
    """Of two epochs, half are the first one; of one and a half, the last loss is of half an epoch."""
    half, once = (Recipe(epochs=epochs, work=work, batch_size=8) for epochs, work in ((2, 0.5), (1, 1.0)))
    together, alone = both(linear(), parts(UNEQUAL, (1, 8, 8)), half, torch.float64)
    assert_alike(together, alone, 1e-9)
    assert_alike(together, both(linear(), parts(UNEQUAL, (1, 8, 8)), once, torch.float64)[1], 1e-9)
    longer = both(linear(), parts((32, 16), (1, 8, 8)), replace(half, work=0.75), torch.float64)
    assert_alike(*longer, 1e-9)
    assert [len(losses) for _, losses in longer[0]] == [2, 2]
