"""A small site for tests of workers: a network with batch norm and dropout, and 30 training images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.task import Update
from sheaf.core.tensor_file import Blob
from sheaf.runtime.worker import Worker
from sheaf.training.preparation import Preparation

RECIPE = Recipe(epochs=2, batch_size=8, lr=0.01, augment=("crop",))
MakeWorker = Callable[..., Worker]
PREPARE = Preparation((0.5,), (0.25,), torch.device("cpu"))


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 3)
    )
    draws = generator(4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=draws)
    return model


def dataset() -> Dataset:
    inputs = torch.randint(256, (60, 1, 8, 8), generator=generator(2), dtype=torch.uint8)
    everything = Samples.of(inputs, torch.arange(60) % 3)
    train, test = everything.select(torch.arange(0, 30)), everything.select(torch.arange(30, 60))
    return Dataset("tiny", train, test, ("a", "b", "c"), (0.5,), (0.25,), "")


def theta() -> Blob:
    return Blob.of(network().state_dict())


def other_theta() -> Blob:
    return Blob.of({name: value + 1 for name, value in network().state_dict().items()})


def sha(update: Update) -> str:
    assert update.blob is not None
    return update.blob.sha256
