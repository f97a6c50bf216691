"""A permutation of channels keeps a network's function, and matching recovers it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from support import one_line
from torch import Tensor, nn

from sheaf.core.errors import CutError
from sheaf.models.build import ModelSettings, build_model
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.structure import ChannelStructure
from sheaf.submodels.weight_matching import align, check_same_function, permute, positions

SHIPPED = {"mlp": (1, 8, 8), "kws_cnn": (1, 40, 61), "mobilenet_v2": (3, 32, 32), "vgg11@32": (3, 32, 32)}
every_toy = pytest.mark.parametrize("toy", toys.EVERY, ids=lambda toy: toy.__name__)


def shuffled(structure: ChannelStructure, params: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    for group in structure.groups:
        if positions(structure, group):
            params = permute(
                structure, params, group.name, torch.randperm(group.units, generator=draws).tolist()
            )
    return params


def parameters(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


@every_toy
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_permutation_keeps_the_function(toy, seed):
    theta = toys.randomised(toy()).state_dict()
    moved = shuffled(toys.structure_of(toy), theta, seed)
    x = torch.randn(4, *toys.SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        toys.logits(toy(), moved, x), toys.logits(toy(), theta, x), rtol=1e-4, atol=1e-5
    )
    assert [value.shape for value in moved.values()] == [value.shape for value in theta.values()]


@every_toy
def test_a_permutation_moves_every_tensor_of_a_group(toy):
    structure, theta = toys.structure_of(toy), toys.randomised(toy()).state_dict()
    for group in structure.groups:
        moved = permute(structure, theta, group.name, list(range(group.units))[::-1])
        changed = {name for name in theta if not torch.equal(moved[name], theta[name])}
        assert {f"{layer}.weight" for layer in group.layers} <= changed
        again = permute(structure, moved, group.name, list(range(group.units))[::-1])
        assert all(torch.equal(again[name], theta[name]) for name in theta)


def test_unit_i_becomes_unit_order_i():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    theta, structure = model.state_dict(), trace(model, (1, 2, 2))
    moved = permute(structure, theta, "1", [2, 0, 1])
    assert torch.equal(moved["1.weight"], theta["1.weight"][[2, 0, 1]])
    assert torch.equal(moved["1.bias"], theta["1.bias"][[2, 0, 1]])
    assert torch.equal(moved["2.weight"], theta["2.weight"][:, [2, 0, 1]])
    assert torch.equal(moved["2.bias"], theta["2.bias"])


@every_toy
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_matching_recovers_a_shuffled_toy(toy, seed):
    model = toys.randomised(toy(), seed % 7)
    theta = model.state_dict()
    aligned = align(
        toys.structure_of(toy), theta, shuffled(toys.structure_of(toy), theta, seed), parameters(model)
    )
    assert all(torch.equal(aligned[name], theta[name]) for name in theta)


@cache
def mlp(hidden: int, layers: int) -> tuple[nn.Module, ChannelStructure]:
    stack: list[nn.Module] = [nn.Flatten(), nn.Linear(9, hidden), nn.Tanh()]
    for _ in range(layers - 1):
        stack += [nn.Linear(hidden, hidden), nn.Tanh()]
    model = nn.Sequential(*stack, nn.Linear(hidden, 4))
    return model, trace(model, (1, 3, 3))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), hidden=st.sampled_from([2, 7, 32]), layers=st.integers(1, 3))
def test_matching_recovers_a_shuffled_mlp(seed, hidden, layers):
    model, structure = mlp(hidden, layers)
    theta = {name: value.clone() for name, value in toys.randomised(model, seed).state_dict().items()}
    aligned = align(structure, theta, shuffled(structure, theta, seed), parameters(model))
    assert all(torch.equal(aligned[name], theta[name]) for name in theta)


@pytest.mark.parametrize("name", SHIPPED)
def test_matching_recovers_a_shuffled_shipped_network(name):
    shape = SHIPPED[name]
    model = build_model(ModelSettings(name=name), 10, shape, seed=0)
    structure, theta = trace(model, shape), model.state_dict()
    moved = shuffled(structure, theta, 1)
    assert sum(not torch.equal(moved[key], theta[key]) for key in theta) >= len(structure.groups)
    check_same_function(model, shape, theta, moved)
    aligned = align(structure, theta, moved, parameters(model))
    assert all(torch.equal(aligned[key], theta[key]) for key in theta)


def test_aligning_increases_the_similarity():
    for toy in toys.EVERY:
        theta, other = toys.randomised(toy(), 1).state_dict(), toys.randomised(toy(), 2).state_dict()
        by = parameters(toy())
        aligned = align(toys.structure_of(toy), theta, other, by)

        def alike(params, theta=theta, by=by):
            return sum(float((theta[name] * params[name]).sum()) for name in by)

        assert alike(aligned) > alike(other)


def test_a_changed_function_is_refused():
    theta = toys.randomised(toys.Plain()).state_dict()
    wrong = theta | {"0.weight": theta["0.weight"].flip(0)}
    with pytest.raises(CutError) as error:
        check_same_function(toys.Plain(), toys.SHAPE, theta, wrong)
    assert "cannot be reordered" in one_line(error)
