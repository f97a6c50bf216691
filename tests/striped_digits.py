"""A toy data set of four classes, and toy networks for it: shared by the tests of training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.training.one_site import train_model
from sheaf.training.preparation import Preparation

K = 4


PREPARE = Preparation((0.4,), (0.2,), torch.device("cpu"))


def samples(n: int = 50) -> Samples:
    draws = generator(8)
    labels = torch.arange(n) % K
    inputs = torch.randint(60, (n, 1, 8, 8), generator=draws, dtype=torch.uint8)
    inputs[torch.arange(n), 0, labels] += 150  # a bright row tells the class
    return Samples.of(inputs, labels)


def linear() -> nn.Module:
    return made(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, K))


def convolutional() -> nn.Module:
    return made(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, K))


def forgetful() -> nn.Module:
    return made(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, K))


def made(*layers: nn.Module) -> nn.Module:
    model = nn.Sequential(*layers)
    draws = generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draws) * 0.2 - 0.1)
    return model


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(make, recipe: Recipe, seed: int = 3, given_samples: Samples | None = None) -> dict[str, Tensor]:
    model = make()
    train_model(model, given_samples or samples(), recipe, PREPARE, seed)
    return bits(model)
