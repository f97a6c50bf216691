"""Plain SGD within the product that makes a gradient: the same step as with the gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from toy_training import CPU, Twice, assert_alike, both, linear, parts

from sheaf.core.recipe import Recipe
from sheaf.training import loop, products, vectorized

PLAIN = Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.05, momentum=0.0)
SIZES = (37, 34, 40)


class Rows(nn.Module):
    """A layer over each of an image's rows, one without a bias, and a weight used beside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.mix, self.last = nn.Linear(8, 6), nn.Linear(6, 6, bias=False), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(torch.relu(self.row(x.squeeze(1))))
        return self.last((y + y @ self.mix.weight).flatten(1))


@pytest.mark.parametrize("make", [linear, Twice, Rows])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("tail", [0.0, 0.4])
def test_it_is_the_step_of_one_site_alone(make, schedule: str, tail: float) -> None:
    recipe = replace(PLAIN, schedule=schedule, tail=tail)
    assert products.steps_in_products(recipe)
    assert_alike(*both(make(), parts(SIZES, (1, 8, 8)), recipe, torch.float64), 1e-9)


@pytest.mark.parametrize("change", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"optimizer": "adam"}])
def test_what_needs_the_gradient_itself_gets_it(change: dict[str, object]) -> None:
    assert not products.steps_in_products(replace(PLAIN, **change))


def test_no_gradient_of_a_weight_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, tuple[int, ...]] = {}
    descend = products.descend

    def seen(weight: Tensor, x: Tensor, gradient: Tensor, lr: float) -> None:
        found[str(tuple(weight.shape))] = (*x.shape, *gradient.shape)
        assert weight.grad is None
        descend(weight, x, gradient, lr)

    monkeypatch.setattr(products, "descend", seen)
    model, own = linear(), parts((16, 16), (1, 8, 8))
    jobs = [vectorized.Job(model.state_dict(), samples, 3) for samples in own]
    vectorized.train(model, jobs, PLAIN, loop.Preparation((0.4,), (0.2,), CPU))
    assert found == {"(2, 64, 16)": (2, 8, 64, 2, 8, 16), "(2, 16, 4)": (2, 8, 16, 2, 8, 4)}


def test_bfloat16_goes_by_gradients() -> None:
    recipe = replace(PLAIN, precision="bfloat16")
    assert loop.casts(recipe, CPU)
    assert_alike(*both(linear(), parts(SIZES, (1, 8, 8)), recipe, torch.float32), 0.05)
