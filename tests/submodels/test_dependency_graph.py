"""Tracing finds the coupled channels, and refuses a model that it cannot cut."""

from __future__ import annotations

import pytest
import torch
import toys
from support import one_line
from torch import Tensor, nn

from sheaf.core.errors import CutError
from sheaf.submodels.dependency_graph import trace


@pytest.mark.parametrize(
    ("toy", "groups"),
    [
        (toys.Plain, [("0", 6, 1), ("3", 8, 1), ("7", 7, 1)]),
        (toys.Residual, [("stem", 8, 1), ("narrow", 5, 1)]),
        (toys.Depthwise, [("widen", 12, 1), ("squeeze", 4, 1)]),
        (toys.Dense, [("a", 4, 1), ("b", 6, 1)]),
        (toys.Grouped, [("0", 8, 2), ("2", 12, 2), ("5", 6, 1)]),
    ],
)
def test_groups_are_the_coupled_channels(toy, groups):
    structure = toys.structure_of(toy)
    assert [(group.name, group.width, group.blocks) for group in structure.groups] == groups
    assert structure.num_classes == 5


def test_a_group_lists_the_layers_that_make_it():
    assert toys.structure_of(toys.Residual).groups[0].layers == ("stem", "widen", "side")
    assert toys.structure_of(toys.Depthwise).groups[0].layers == ("widen", "each", "excite")
    assert toys.structure_of(toys.Dense).convolutions == ("a", "b", "c")


def test_tracing_leaves_the_model_unchanged():
    model = toys.Residual().train()
    model.stem.requires_grad_(False)
    model.register_buffer("shift", torch.full((1, 3, 1, 1), 0.5), persistent=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.random.get_rng_state()
    structure = trace(model, toys.SHAPE)
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    submodel = structure.submodel(structure.cut({"narrow": [1, 2]})).module()
    assert submodel.training
    assert not submodel.stem.weight.requires_grad
    assert submodel.narrow.weight.requires_grad
    assert torch.equal(submodel.shift, model.shift)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in submodel.modules())


class Choosy(toys.Plain):
    """Looks at values and holds a tensor of its own, so shapes alone do not run it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - torch.ones(3, 1, 1) if x.sum() >= 0 else -x)


def test_a_model_that_reads_values_is_traced_on_the_cpu():
    model = Choosy()
    draws = torch.random.get_rng_state()
    structure = trace(model, toys.SHAPE)
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert [group.name for group in structure.groups] == ["0", "3", "7"]


def test_group_normalisation_keeps_its_groups():
    structure = trace(toys.normalised_in_groups(), toys.SHAPE)
    (group,) = structure.groups
    assert (group.width, group.blocks) == (12, 3)
    submodel = structure.submodel(structure.cut({"0": group.channels([1, 3])}, [0, 2]))
    assert submodel.module()(torch.zeros(2, *toys.SHAPE)).shape == (2, 2)


class Flipped(toys.Plain):
    """Channels change their places, which the graph does not show."""

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self):
            x = layer(x).flip(1) if number == 0 else layer(x)
        return x


class Mixed(toys.Plain):
    """Every channel depends on all."""

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self):
            x = layer(x).softmax(1) if number == 0 else layer(x)
        return x


class Tied(toys.Grouped):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(3, 8, 1)
        self.again.weight = self[0].weight


class Scaled(toys.Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale.mean()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(24, 8, batch_first=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x.flatten(2))[0][:, -1])


class Shuffled(toys.Plain):
    """Channels are shuffled and split, as in ShuffleNet: Torch-Pruning raises an error of its own."""

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self):
            x = layer(x)
            if number == 0:
                shuffled = x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
                first, second = shuffled.chunk(2, 1)
                x = torch.cat([first, second.relu()], 1)
        return x


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Flipped, "Flip"),
        (Shuffled, "a shuffle or a split of channels cannot be cut"),
        (Mixed, "Softmax"),
        (Tied, "0.weight and again.weight are one parameter"),
        (Scaled, r"the model \(Scaled\) has parameters"),
        (Recurrent, r"rnn \(GRU\) has parameters"),
        (lambda: nn.Linear(3, 5), "a single layer"),
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8, 5)), "cannot be traced: Given"),
    ],
)
def test_a_model_that_cannot_be_cut_is_refused(model, says):
    with pytest.raises(CutError, match=says) as error:
        trace(toys.randomised(model()) if model is not Tied else model(), toys.SHAPE)
    one_line(error)
