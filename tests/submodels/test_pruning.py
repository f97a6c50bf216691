"""The undocumented parts of Torch-Pruning that ``sheaf.submodels.pruning`` relies on.

If one of these tests fails after an update of Torch-Pruning, only that module has to change.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.pruner.function import PrunerBox

from sheaf.core.errors import CutError
from sheaf.submodels.pruning import (
    PRUNABLE,
    Couplings,
    Removed,
    blocks_of,
    check_grouped,
    prune,
    remaining,
)


class Concatenated(nn.Module):
    """Two convolutions side by side, and a classifier of all their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 2, 1)
        self.b = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.cat([self.a(x), self.b(x)], 1)).relu().mean((2, 3)))


@pytest.fixture
def model() -> Concatenated:
    return Concatenated().eval()


@pytest.fixture
def couplings(model: Concatenated) -> Couplings:
    return Couplings(model, torch.zeros(2, 3, 4, 4))


def test_a_coupling_maps_channels_through_a_concatenation(model: Concatenated, couplings: Couplings) -> None:
    ends = {(end.layer, end.side): end for end in couplings.of(model.b, [1, 3])}
    assert {layer for layer, _ in ends if isinstance(layer, PRUNABLE)} == {model.b, model.norm, model.head}
    head = ends[model.head, "in"]
    assert (head.width, list(head.positions), list(head.roots)) == (6, [3, 5], [1, 3])


def test_the_first_node_of_the_graph_makes_the_outputs(model: Concatenated, couplings: Couplings) -> None:
    assert not any(end.output for end in couplings.of(model.a, [0]))
    assert [end.layer for end in couplings.of(model.head, [0]) if end.output] == [model.head]


def test_operations_without_parameters_have_autograds_names(couplings: Couplings) -> None:
    assert {"Relu", "Cat", "Mean"} <= couplings.operations()


def test_an_unused_layer_is_not_in_the_graph(model: Concatenated) -> None:
    model.unused = nn.Linear(2, 2)
    assert model.unused not in Couplings(model, torch.zeros(2, 3, 4, 4))


LAYERS = [
    (nn.Conv2d(6, 4, 3), Removed([1], [0, 5]), {"weight": (3, 4, 3, 3), "bias": (3,)}),
    (nn.Conv2d(6, 4, 1, groups=2), Removed([1, 3], [0, 3]), {"weight": (2, 2, 1, 1), "bias": (2,)}),
    (nn.Conv2d(6, 6, 3, groups=6), Removed([2], []), {"weight": (5, 1, 3, 3), "bias": (5,)}),
    (nn.ConvTranspose2d(6, 4, 3), Removed([1], [0]), {"weight": (5, 3, 3, 3), "bias": (3,)}),
    (nn.Linear(6, 4), Removed([1], [0, 5]), {"weight": (3, 4), "bias": (3,)}),
    (nn.BatchNorm2d(4), Removed([1], []), {"weight": (3,), "running_mean": (3,), "num_batches_tracked": ()}),
    (nn.GroupNorm(2, 4), Removed([1, 3], []), {"weight": (2,), "bias": (2,)}),
    (nn.InstanceNorm2d(4, affine=True), Removed([1], []), {"weight": (3,), "bias": (3,)}),
    (nn.PReLU(4), Removed([1], []), {"weight": (3,)}),
]


@pytest.mark.parametrize(("layer", "removed", "shapes"), LAYERS, ids=lambda value: type(value).__name__)
def test_pruning_shortens_all_tensors_of_a_layer(
    layer: nn.Module, removed: Removed, shapes: dict[str, tuple[int, ...]]
) -> None:
    whole, pruned = layer.state_dict(), copy.deepcopy(layer)
    prune(pruned, removed)
    left = pruned.state_dict()
    assert shapes.items() <= {name: tuple(value.shape) for name, value in left.items()}.items()
    for name, spans in remaining(layer, pruned, removed).items():
        kept = whole[name]
        for dim, runs in enumerate(spans):
            kept = torch.cat([kept.narrow(dim, start, stop - start) for start, stop in runs], dim)
        assert torch.equal(left[name], kept)


def test_every_prunable_layer_has_a_pruner() -> None:
    kinds = {ops.module2type(layer) for layer, _, _ in LAYERS}
    assert all(hasattr(PrunerBox[kind], f"prune_{side}_channels") for kind in kinds for side in ("out", "in"))


def test_blocks_are_the_groups_of_a_layer() -> None:
    assert blocks_of(nn.Conv2d(6, 4, 1, groups=2)) == 2
    assert blocks_of(nn.Conv2d(6, 6, 1, groups=6)) == 1, "depthwise: every channel is a unit"
    assert blocks_of(nn.GroupNorm(3, 6)) == 3
    assert blocks_of(nn.Linear(6, 4)) == 1


def test_the_groups_of_a_convolution_lose_the_same_positions() -> None:
    layer = nn.Conv2d(6, 4, 1, groups=2)
    check_grouped("conv", layer, Removed([0, 2], [1, 4]))
    with pytest.raises(CutError, match="conv, a convolution of 2 groups, would lose different channels"):
        check_grouped("conv", layer, Removed([], [1]))


def test_a_layer_that_cannot_lose_a_channel_is_named() -> None:
    with pytest.raises(CutError, match="a ParametrizedLinear cannot lose the channels outside the cut"):
        prune(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), Removed([1], []))


def test_a_layer_that_would_lose_all_channels_is_refused() -> None:
    layer, removed = nn.Conv2d(3, 4, 1), Removed([0], [0, 1, 2])
    pruned = copy.deepcopy(layer)
    prune(pruned, removed)
    with pytest.raises(CutError, match="Conv2d would lose all of its channels"):
        remaining(layer, pruned, removed)
