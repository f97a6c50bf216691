"""Small networks, one for each way in which channels are coupled."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.models.build import ModelSettings, build_skeleton
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.structure import ChannelStructure
from sheaf.submodels.submodel import SubModel

SHAPE = (3, 9, 8)


class Plain(nn.Sequential):
    """Flattened into a linear layer: each channel is twelve of its inputs."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3, bias=False),
            nn.PReLU(8),
            nn.AdaptiveAvgPool2d((3, 4)),
            nn.Flatten(),
            nn.Linear(96, 7),
            nn.BatchNorm1d(7),
            nn.Dropout(),
            nn.Linear(7, 5),
        )


class Residual(nn.Module):
    """Two convolutions make the same channels, and a third adds to them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.narrow = nn.Conv2d(8, 5, 1)
        self.norm = nn.BatchNorm2d(5)
        self.widen = nn.Conv2d(5, 8, 3, padding=1)
        self.side = nn.Conv2d(3, 8, 1, bias=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        y = y + self.widen(self.norm(self.narrow(y)).relu())
        return self.fc((y + self.side(x)).mean((2, 3)))


class Depthwise(nn.Module):
    """A filter for each channel, then a gate for each channel (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 12, 1)
        self.each = nn.Conv2d(12, 12, 3, groups=12)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.each(self.widen(x).relu())
        gate = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.fc((y * gate).mean((2, 3)))


class Dense(nn.Module):
    """Everything before is concatenated, the input too; the last sum couples three layers in part."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(7, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.c = nn.Conv2d(10, 10, 1)
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(torch.cat([x, a], 1)).relu()
        both = self.norm(torch.cat([a, b], 1))
        return self.fc((both + self.c(both)).mean((2, 3)))


class Grouped(nn.Sequential):
    """A convolution of two groups, which takes and makes channels in two equal shares."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, groups=2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 6, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5, bias=False),
        )


class DigitsCNN(nn.Sequential):
    """Two convolutions with batch norm for digits of 8 x 8: ``model.name = "toys:DigitsCNN"``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(1, 12, 3),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 20, 3),
            nn.BatchNorm2d(20),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(80, num_classes),
        )


class DroppingCNN(nn.Sequential):
    """Batch norm over images and over features, and dropout, for digits of 8 x 8: ``"toys:DroppingCNN"``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(216, 12, bias=False),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(12, num_classes),
        )


class Uncuttable(nn.Module):
    """Channels are regrouped in a way that no table of coupled channels can tell."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).mean((2, 3))
        return self.fc(y.sort(1).values)


EVERY = [Plain, Residual, Depthwise, Dense, Grouped]


def without_bias(num_classes: int, in_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(in_shape), num_classes, bias=False))


def randomised(model: nn.Module, seed: int = 0, blocks: int = 1) -> nn.Module:
    """The model with parameters and statistics drawn anew, none of them an identity, in eval mode.

    A block of channels, one of so many, passes signals on at the size at which it gets them.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            value.fill_(3)
        elif value.dim() > 1:
            cut = blocks if value.shape[1] > 3 else 1  # the inputs are whole, a depthwise filter too
            value.normal_(0, (2 * cut / prod(value.shape[1:])) ** 0.5, generator=generator)
        elif name.endswith(("weight", "running_var")):
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, 0.1, generator=generator)
    return model.eval()


def logits(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """In eval mode, of the model with these parameters, which it then holds."""
    model.load_state_dict(params, strict=True, assign=True)
    with torch.no_grad():
        return model.eval()(x)


def bind(
    theta: Params, submodels: Iterable[tuple[SubModel, Params, float]], unheld: Literal["keep", "zero"]
) -> dict[str, Tensor]:
    """Average sub-models, given as (sub-model, its parameters, weight)."""
    contributions = (Contribution(params, weight, submodel) for submodel, params, weight in submodels)
    return average(theta, contributions, unheld)


@cache
def structure_of(toy: type[nn.Module]) -> ChannelStructure:
    """Return the structure of a toy, traced once."""
    return trace(toy(), SHAPE)


def theta_of(toy: type[nn.Module], seed: int = 0) -> dict[str, Tensor]:
    """Return random parameters of a toy."""
    return randomised(toy(), seed).state_dict()


def normalised_in_groups() -> nn.Module:
    """Return a network with group normalisation that ends in a convolution."""
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 5, 1), *tail)


def thinned(name: str, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return a shipped model with at most 64 channels in each group, parameters zero, in training mode.

    Every layer and every coupling of the model is there; its 130 million parameters (VGG) are not.
    """
    structure = trace(build_skeleton(ModelSettings(name=name), classes, shape), shape)
    kept = {group.name: group.channels(range(min(group.units, 64))) for group in structure.groups}
    return structure.submodel(structure.cut(kept)).module()
