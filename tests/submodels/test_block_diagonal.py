"""The blocks of a bound model: nothing is lost, and the results are those of the dense computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sheaf.models.flops import macs_per_example
from sheaf.submodels.block_diagonal import BlockDiagonal
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.submodel import SubModel

quick = settings(max_examples=10, deadline=None)
every_toy = pytest.mark.parametrize("toy", toys.EVERY, ids=lambda toy: toy.__name__)


@st.composite
def bound_models(draw: st.DrawFn, toy: type[nn.Module]) -> tuple[list[SubModel], dict[str, Any]]:
    """Sub-models of any cuts, with and without common channels, and the model bound from them."""
    structure, theta = toys.structure_of(toy), toys.theta_of(toy)
    submodels = []
    for _ in range(draw(st.integers(1, 3))):
        kept = {
            group.name: group.channels(draw(st.sets(st.integers(0, group.units - 1), min_size=1)))
            for group in structure.groups
            if draw(st.booleans())
        }
        classes = draw(st.sets(st.integers(0, structure.num_classes - 1), min_size=1))
        submodels.append(structure.submodel(structure.cut(kept, classes)))
    parts = [(submodel, submodel.take(theta), 1.0) for submodel in submodels]
    return submodels, toys.bind(theta, parts, unheld="zero")


@every_toy
@quick
@given(data=st.data())
def test_the_forward_pass_is_that_of_the_dense_model(toy: type[nn.Module], data: st.DataObject) -> None:
    submodels, theta = data.draw(bound_models(toy))
    model = toy().eval()
    bound = BlockDiagonal(model, submodels)
    packed = bound.pack(theta)
    unpacked = bound.unpack(packed, theta)
    assert unpacked.keys() == theta.keys()
    assert all(torch.equal(unpacked[name], value) for name, value in theta.items())
    assert all(value.is_contiguous() for value in packed.values())

    model.load_state_dict(unpacked)
    model.double()
    x = torch.randn(3, *toys.SHAPE, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        dense = model(x)
        with bound.multiplied(model):
            blockwise = model(x)
        again = model(x)
    torch.testing.assert_close(blockwise, dense, rtol=1e-10, atol=1e-10)
    assert torch.equal(again, dense), "outside of the with, the layers are dense"


class Striped(nn.Sequential):
    """Three convolutions of twelve channels and twelve classes, which divide among 2, 3 and 4 sites."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3),
            nn.Sigmoid(),  # not 0 at 0
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 12),
        )


FIRST, SECOND, THIRD, LAST = 3 * 12 * 9 * 72, 12 * 12 * 9 * 72, 12 * 12 * 9 * 42, 12 * 12
"""Multiply-adds of the layers of ``Striped`` for an image of 9 x 8."""


def decoupled(sites: int, stem: int) -> tuple[nn.Module, list[SubModel], dict[str, Any]]:
    """Return ``Striped`` bound from the sub-models of sites with classes of their own."""
    structure, each = toys.structure_of(Striped), 12 // sites
    needs = [SiteNeeds(f"edge-{n}", tuple(range(n * each, (n + 1) * each))) for n in range(sites)]
    submodels = [structure.submodel(cut) for cut in ByClass(stem=stem)(structure, needs, 0).values()]
    theta = toys.theta_of(Striped)
    parts = [(submodel, submodel.take(theta), 1.0) for submodel in submodels]
    return Striped(), submodels, toys.bind(theta, parts, unheld="zero")


@pytest.mark.parametrize("sites", [2, 3, 4])
@pytest.mark.parametrize(
    ("stem", "whole"), [(0, FIRST), (1, FIRST + SECOND)], ids=["no stem", "stem of one convolution"]
)
def test_a_forward_pass_costs_one_gth(sites: int, stem: int, whole: int) -> None:
    """Only the layers that take the image or the stem's outputs are not divided by the number of sites."""
    model, submodels, theta = decoupled(sites, stem)
    bound = BlockDiagonal(model, submodels)
    dense = FIRST + SECOND + THIRD + LAST
    assert macs_per_example(model, toys.SHAPE) == dense
    with bound.multiplied(model):
        blockwise = macs_per_example(model, toys.SHAPE)
    assert blockwise == whole + (dense - whole) // sites
    packed = bound.pack(theta)
    for name in bound.blocks:
        sent = sum(value.numel() for key, value in packed.items() if key.startswith(f"{name} block"))
        assert sent == theta[name].numel() // sites


def test_a_model_with_other_values_is_not_packed() -> None:
    model, submodels, theta = decoupled(2, 0)
    bound = BlockDiagonal(model, submodels)
    name = next(iter(bound.blocks))
    other = theta | {name: torch.ones_like(theta[name])}
    with pytest.raises(ValueError, match=r"is not bound from these sub-models"):
        bound.pack(other)
    packed = bound.pack(theta)
    del packed[f"{name} block 1"]
    with pytest.raises(ValueError, match="has no tensor"):
        bound.unpack(packed, theta)
