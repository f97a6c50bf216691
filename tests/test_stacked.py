"""Sites trained as one end with what they end with alone, but for the order of floating-point sums."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import toys
from torch import Tensor, nn

from sheaf import models, plugins, stacked, training
from sheaf.dropout import drops
from sheaf.models import ModelSettings
from sheaf.seeds import generator
from sheaf.stacked import Job
from sheaf.types import Recipe, Samples

CPU = torch.device("cpu")
UNEQUAL = (37, 50, 17, 8, 33)
"""Examples of five sites: different steps, different last batches, of 8 and of 9."""


class Exact(training.Preparation):
    """The same in float64."""

    def __call__(self, inputs: Tensor) -> Tensor:
        return super().__call__(inputs).double()


def prepare(dtype: torch.dtype, channels: int = 1) -> training.Preparation:
    kind = Exact if dtype == torch.float64 else training.Preparation
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
    together = stacked.train(model, jobs, recipe, prepare(dtype, channels))
    alone = []
    for job in jobs:
        model.load_state_dict(job.start)
        losses = training.train(model, job.samples, recipe, prepare(dtype, channels), job.seed)
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


RECIPES = [
    Recipe(
        epochs=2,
        batch_size=8,
        optimizer=optimizer,
        schedule=schedule,
        lr=0.01,
        weight_decay=0.01,
        augment=augment,
        tail=tail,
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
    keys = {stacked.together(make(), n, recipe) for n in sizes}
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


@pytest.mark.parametrize("name", list(plugins.describe("models")))
def test_every_model(name: str) -> None:
    """In float64; without dropout, with which it would not be stacked."""
    side = 64 if name in ("alexnet", "mobilenet_v2", "resnet50") else 32  # these end in 1x1 maps of 32x32
    shape = (1 if name == "kws_cnn" else 3, side, side)
    model = models.build(ModelSettings(name=name), 4, shape, 0)
    assert not stacked.draws(model, shape)
    assert stacked.can_stack(model, shape) == (not drops(model))
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    model.double()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    recipe = Recipe(epochs=1, batch_size=3, optimizer="sgd", lr=1e-4, momentum=0.5)
    jobs = [Job(start, samples, k) for k, samples in enumerate(parts((3, 3), shape))]
    together = stacked.train(model, jobs, recipe, prepare(torch.float64, shape[0]))
    alone = []
    for job in jobs:
        model.load_state_dict(start)
        losses = training.train(model, job.samples, recipe, prepare(torch.float64, shape[0]), job.seed)
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
    stack = stacked.Stack(model, len(jobs), Recipe(batch_size=8), CPU)
    stack.train(jobs, prepare(torch.float32), lambda k, *step: told.update({k: step[:2]}))
    assert told == {k: (len(training.batch_sizes(n, 8)),) * 2 for k, n in enumerate(UNEQUAL)}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x.flatten(1)).relu()))


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x.flatten(1))
        return y * 2 if y.sum().item() > 0 else y


def test_what_cannot_be_stacked_is_told() -> None:
    assert stacked.can_stack(linear(), (1, 8, 8))
    assert stacked.can_stack(convolutional(), (1, 8, 8))
    for model in (Tied(), LooksAtValues(), nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 4))):
        assert not stacked.can_stack(model, (1, 8, 8))


def test_the_network_and_the_global_generator_are_left_alone() -> None:
    model = convolutional()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    jobs = [Job(before, samples, 0) for samples in parts((8, 8), (1, 8, 8))]
    recipe = Recipe(augment=("flip", "crop"))
    first = stacked.train(model, jobs, recipe, prepare(torch.float32))
    again = stacked.train(model, jobs, recipe, prepare(torch.float32))
    assert stacked.draws(nn.Sequential(nn.AlphaDropout(), nn.Flatten()), (1, 8, 8))
    assert not stacked.draws(nn.Sequential(nn.Dropout(), nn.Flatten()), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for (one, _), (other, _) in zip(first, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [linear, convolutional])
def test_a_stack_is_used_for_one_set_of_sites_after_another(make) -> None:
    recipe = Recipe(epochs=2, batch_size=8, optimizer="adam", lr=0.01)
    stack = stacked.Stack(make(), 3, recipe, CPU)
    for seed in range(3):
        start = toys.randomised(make(), seed).state_dict()
        jobs = [Job(start, own, seed + k) for k, own in enumerate(parts((40, 40, 40), (1, 8, 8)))]
        found = stack.train(jobs, prepare(torch.float32))
        anew = stacked.train(make(), jobs, recipe, prepare(torch.float32))
        for (one, losses), (other, expected) in zip(found, anew, strict=True):
            assert losses == expected
            assert all(torch.equal(one[name], other[name]) for name in other)


def test_sites_with_labels_of_their_own() -> None:
    """A part's outputs are for its site's classes, so each site reads the same image by other labels."""
    own = parts((20, 20), (1, 8, 8))
    own[1] = replace(own[1], targets=(own[1].targets + 1) % 4)
    assert_alike(*both(linear(), own, Recipe(batch_size=8), torch.float64), 1e-9)


@pytest.mark.parametrize("make", [linear, convolutional, Twice])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_stack_of_one_ends_with_the_same_bits(make, optimizer: str) -> None:
    recipe = Recipe(epochs=3, batch_size=8, optimizer=optimizer, lr=0.01, augment=("flip",), tail=0.4)
    together, alone = both(make(), parts((37,), (1, 8, 8)), recipe, torch.float32)
    assert together[0][1] == alone[0][1]
    for name, value in together[0][0].items():
        assert torch.equal(value, alone[0][0][name]), name
