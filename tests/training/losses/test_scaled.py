"""The scaler of HeteroFL against a network that divides its layers' outputs."""

from __future__ import annotations

import pytest
import torch
from striped_digits import PREPARE
from torch import Tensor, nn
from toy_training import CPU, parts

from sheaf.core.recipe import Recipe
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.losses.cross_entropy import CrossEntropy
from sheaf.training.losses.restricted_softmax import RestrictedSoftmax
from sheaf.training.losses.scaled import Scaled
from sheaf.training.one_site import OneSite
from sheaf.training.step import LossContext
from sheaf.training.vectorized import Stack

WIDTHS = (0.25, 0.5, 1.0)
RECIPE = Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.05, loss=Scaled())


class Divided(nn.Module):
    """The scaler as published: divides in training only (modules.py of the authors' repository)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return x / self.rate if self.training else x


def network(rate: float | None = None) -> nn.Sequential:
    """Return a network without batch norm, which would undo the scale."""
    scaler = [nn.Identity() if rate is None else Divided(rate) for _ in range(2)]
    conv, hidden = nn.Conv2d(1, 3, 3), nn.Linear(108, 6)
    return nn.Sequential(
        conv, scaler[0], nn.ReLU(), nn.Flatten(), hidden, scaler[1], nn.ReLU(), nn.Linear(6, 4)
    )


def start() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    shapes = network().state_dict()
    return {name: torch.randn(value.shape, generator=draws) * 0.2 for name, value in shapes.items()}


def job(site: int, width: float) -> Job:
    hidden = ("0.weight", "0.bias", "4.weight", "4.bias")
    constants = {f"scale {name}": torch.tensor(1 / width) for name in hidden}
    return Job(start(), parts((20, 20, 20), (1, 8, 8))[site], 5 + site, constants)


@pytest.mark.parametrize("stacked", [False, True])
def test_training_is_that_of_a_network_that_divides(stacked: bool) -> None:
    jobs = [job(site, width) for site, width in enumerate(WIDTHS)]
    if stacked:
        trained = loop.train(Stack(network(), 3, RECIPE, CPU), jobs, RECIPE, PREPARE)
    else:
        trained = [loop.train(OneSite(network(), RECIPE), [each], RECIPE, PREPARE)[0] for each in jobs]
    for site, width in enumerate(WIDTHS):
        plain = Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.05)
        own = Job(start(), jobs[site].samples, jobs[site].seed)
        (expected,) = loop.train(OneSite(network(width), plain), [own], plain, PREPARE)
        for name, value in expected.params.items():
            torch.testing.assert_close(trained[site].params[name], value, rtol=1e-4, atol=1e-5)


def test_without_constants_it_is_the_loss_inside() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([0, 2, 1])
    present = LossContext(present=torch.tensor([True, True, True, False]))
    masked = RestrictedSoftmax(alpha=0)
    assert torch.equal(Scaled(loss=masked)(logits, labels, present), masked(logits, labels, present))
    assert torch.equal(Scaled()(logits, labels, present), CrossEntropy()(logits, labels, present))
    assert Scaled().effective({"w": logits}, present) == {"w": logits}
