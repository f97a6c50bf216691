"""A way of training that ends with other numbers than the plain one is not chosen for a model."""

from __future__ import annotations

import logging

import pytest
import torch
import toys
from torch import Tensor, nn
from toy_training import convolutional, linear

from sheaf.models.forward_effects import Effects, mark
from sheaf.training.model_check import draws_randomly, why_not_stacked
from sheaf.training.network import Network

SHAPE = (1, 8, 8)


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


class AssignsBuffer(LooksAtValues):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x.flatten(1))
        self.mean = 0.9 * self.mean + y.detach().mean(0)
        return y


class Counts(LooksAtValues):
    """Trains the other branch from its third step on."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        y = self.fc(x.flatten(1))
        return y.tanh() if self.steps > 3 else y


class InFloat32(LooksAtValues):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1).float())


class Dropped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Dropout(), nn.Linear(64, 4))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Tied, "two of its parameters are one tensor"),
        (LooksAtValues, "its steps do not run together: RuntimeError: vmap"),
        (Dropped, "its steps do not run together: RuntimeError: vmap"),
        (AssignsBuffer, "its steps lead to another mean together"),
        (Counts, "its steps lead to another fc.weight together"),
    ],
)
def test_the_reason_against_a_stack(make, problem: str) -> None:
    assert why_not_stacked(make(), SHAPE, compare=True).startswith(problem)


@pytest.mark.parametrize("make", [linear, convolutional, InFloat32])
def test_a_sound_model_can_be_stacked(make) -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert why_not_stacked(model, SHAPE, compare=True) == ""
    assert why_not_stacked(model, SHAPE, compare=False) == ""
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("make", toys.EVERY)
def test_rounding_is_no_difference(make) -> None:
    model = make()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    assert why_not_stacked(model, toys.SHAPE, compare=True) == ""


def test_what_cannot_run_at_all_is_not_stacked() -> None:
    for make in (Tied, LooksAtValues, Dropped):
        assert why_not_stacked(make(), SHAPE, compare=False)


def test_random_draws_are_found() -> None:
    state = torch.get_rng_state()
    assert draws_randomly(nn.Sequential(nn.AlphaDropout(), nn.Flatten()), SHAPE)
    assert not draws_randomly(nn.Sequential(nn.Dropout(), nn.Flatten()), SHAPE)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_traits_of_a_users_model_follow_its_marks(caplog) -> None:
    caplog.set_level(logging.INFO, "sheaf")
    models = [linear(), linear(), AssignsBuffer(), linear()]
    mark(models[0], Effects())
    mark(models[1], Effects(not_recorded="it counts"))
    mark(models[2], Effects())
    mark(models[3], Effects(alone="it draws"))
    traits = [Network(model, SHAPE).traits() for model in models]
    assert [each.stacks for each in traits] == [True, False, False, False]
    assert [each.draws for each in traits] == [False, False, False, True]
    assert [record.getMessage() for record in caplog.records] == [
        "sites are trained one by one, without recorded steps: its steps lead to another mean together"
    ]


def test_sub_models_share_the_comparison(caplog) -> None:
    caplog.set_level(logging.INFO, "sheaf")

    class Assigns(toys.Plain):
        def __init__(self) -> None:
            super().__init__()
            self[9].p = 0.0
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count = self.count + 1
            return super().forward(x)

    for make, stacks in ((toys.Plain, True), (Assigns, False)):
        model = make()
        model[9].p = 0.0
        mark(model, Effects())
        network = Network(model, toys.SHAPE)
        cuts = [network.structure.cut({"0": range(width)}) for width in (2, 3)]
        assert [network.traits(cut).stacks for cut in cuts] == [stacks] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "sites are trained one by one, without recorded steps: its steps lead to another count together"
    ]
