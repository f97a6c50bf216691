"""Training of one site: the bits of a loop written by hand, no state left behind."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
from striped_digits import PREPARE, K, bits, convolutional, forgetful, linear, made, same, samples, trained
from torch import nn
from torch.nn import functional as F

from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training.batches import batch_sizes
from sheaf.training.evaluation import evaluate
from sheaf.training.one_site import train_model

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.02, 0.8, weight_decay=0.01, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.02, weight_decay=0.01, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.02, weight_decay=0.01, fused=True),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("make", [linear, convolutional])
def test_it_ends_with_the_bits_of_a_loop_written_by_hand(name: str, make) -> None:
    recipe = Recipe(epochs=2, batch_size=16, optimizer=name, lr=0.02, momentum=0.8, weight_decay=0.01)
    model, by_hand, data, draws = (
        make(),
        make().to(memory_format=torch.channels_last),
        samples(),
        generator(3),
    )
    losses = train_model(model, data, recipe, PREPARE, 3)
    optimizer, expected = OPTIMIZERS[name](by_hand.parameters()), []
    for _ in range(2):
        order, total = torch.randperm(50, generator=draws), 0.0
        for positions in order.split(16):
            x = (data.inputs[positions].float() - 0.4 * 255) / (0.2 * 255)
            loss = F.cross_entropy(by_hand(x), data.targets[positions])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(positions)
        expected.append(total / 50)
    assert same(bits(model), bits(by_hand))
    assert losses == expected


@pytest.mark.parametrize("make", [linear, convolutional])
def test_a_tail_leaves_the_mean_of_what_the_last_steps_made(make) -> None:
    step = Recipe(epochs=1, batch_size=50, optimizer="sgd", lr=0.02, momentum=0.0)
    model, made_of = make(), []
    for _ in range(3):
        train_model(model, samples(), step, PREPARE, 3)
        made_of.append(bits(model))
    for tail, last in ((1e-3, 1), (2 / 3, 2), (1.0, 3)):
        averaged = trained(make, replace(step, epochs=3, average_last=tail))
        for name, value in averaged.items():
            expected = made_of[-1][name]
            if value.is_floating_point():
                expected = torch.stack([each[name] for each in made_of[-last:]]).mean(0)
            torch.testing.assert_close(value, expected)


def test_it_learns() -> None:
    model = linear()
    losses = train_model(model, samples(), Recipe(epochs=30, batch_size=10, lr=0.01), PREPARE, 3)
    assert losses[-1] < 0.1 * losses[0]
    confusion, *_ = evaluate(model, samples(), PREPARE, K)
    assert confusion.diagonal().sum() == 50


LITERALS = {
    name: get_args(hint)
    for name, hint in get_type_hints(Recipe).items()
    if name in ("optimizer", "schedule", "precision")
}


@pytest.mark.parametrize("choice", list(itertools.product(*LITERALS.values())), ids="-".join)
def test_every_recipe_trains(choice: tuple[str, ...]) -> None:
    recipe = Recipe(
        epochs=2, batch_size=24, augment=("flip", "crop"), **dict(zip(LITERALS, choice, strict=True))
    )
    model = convolutional()
    before = bits(model)
    losses = train_model(model, samples(), recipe, PREPARE, 3)
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert not torch.equal(before["0.weight"], bits(model)["0.weight"])


@pytest.mark.parametrize(("epochs", "n"), [(1, 1), (1, 2), (2, 2), (3, 2), (4, 2)])
def test_schedules_of_few_steps(epochs: int, n: int) -> None:
    for schedule in LITERALS["schedule"]:
        recipe = Recipe(epochs=epochs, batch_size=64, schedule=schedule)
        assert len(train_model(linear(), samples(n), recipe, PREPARE, 3)) == epochs


def test_no_epoch_changes_nothing() -> None:
    for schedule in LITERALS["schedule"]:
        recipe = Recipe(epochs=0, schedule=schedule)
        assert same(trained(convolutional, recipe), bits(convolutional()))


@pytest.mark.parametrize("make", [linear, convolutional, forgetful])
@pytest.mark.parametrize("augment", [(), ("flip",), ("crop",)])
def test_same_seed_same_bits(make, augment: tuple[str, ...]) -> None:
    recipe = Recipe(epochs=2, batch_size=16, augment=augment)
    torch.manual_seed(1)
    first = trained(make, recipe, seed=2**63 - 1)
    torch.manual_seed(2)
    assert same(trained(make, recipe, seed=2**63 - 1), first)
    assert not same(trained(make, recipe, seed=4), first)


def test_dropout_draws_from_the_seed() -> None:
    recipe, one = Recipe(epochs=1, batch_size=64), samples(1)  # a single example has but one order
    assert same(trained(forgetful, recipe, 1, one), trained(forgetful, recipe, 1, one))
    assert not same(trained(forgetful, recipe, 1, one), trained(forgetful, recipe, 2, one))


def test_the_global_generator_is_left_alone() -> None:
    model, data = forgetful(), samples()  # torch's layers draw when they are made
    before = torch.get_rng_state()
    train_model(model, data, Recipe(epochs=2, augment=("flip", "crop")), PREPARE, 3)
    evaluate(model, data, PREPARE, K)
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_parameters_stay() -> None:
    model = linear()
    model[1].requires_grad_(False)
    before = bits(model)
    train_model(model, samples(), Recipe(epochs=1, weight_decay=0.5), PREPARE, 3)
    after = bits(model)
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])


@pytest.mark.parametrize("optimizer", LITERALS["optimizer"])
def test_a_learning_rate_beyond_reason_ends_in_a_loss_that_says_so(optimizer: str) -> None:
    model = convolutional()
    losses = train_model(model, samples(), Recipe(epochs=4, lr=1e30, optimizer=optimizer), PREPARE, 3)
    assert len(losses) == 4
    assert not all(0 <= loss < 1e6 for loss in losses)
    confusion, *_ = evaluate(model, samples(), PREPARE, K)
    assert confusion.sum() == 50


@pytest.mark.parametrize("n", [17, 33, 2, 16])
def test_batch_norm_never_meets_one_example_alone(n: int) -> None:
    narrow = made(nn.Flatten(), nn.Linear(64, K), nn.BatchNorm1d(K))  # torch refuses one example here
    losses = train_model(narrow, samples(n), Recipe(epochs=2, batch_size=16), PREPARE, 3)
    assert all(math.isfinite(loss) for loss in losses)
    assert bits(narrow)["2.num_batches_tracked"].item() == 2 * len(batch_sizes(n, 16))


def test_progress_ends_with_the_last_step() -> None:
    told = []
    train_model(
        linear(), samples(), Recipe(epochs=3, batch_size=5), PREPARE, 3, lambda *step: told.append(step)
    )
    assert [done for done, *_ in told] == [16, 30]
    assert {steps for _, steps, *_ in told} == {30}
    assert all(math.isfinite(loss) for _, _, loss, _ in told)
    assert told[-1][-1] == 3 * len(samples()), "every example of every epoch"
