"""Dropout with a generator of its own drops what torch's would."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sheaf.core.seeds import global_draws_from
from sheaf.training.seeded_dropout import dropout_from, drops


def forgetful(p: float, inplace: bool = False) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 40), nn.Dropout(p, inplace), nn.Linear(40, 30), nn.Dropout(p, inplace))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_the_same_bits_as_torchs(p: float, inplace: bool) -> None:
    model, x = forgetful(p, inplace), torch.ones(700, 6)
    with global_draws_from(3):
        expected = model(x)
    expected.sum().backward()
    gradient, model[0].weight.grad = model[0].weight.grad, None
    with dropout_from(model, 3):
        found = model(x)
    found.sum().backward()
    assert torch.equal(found, expected)
    assert torch.equal(model[0].weight.grad, gradient)
    assert (found == 0).any() == (p > 0)


def test_it_takes_nothing_from_the_generator_of_the_process_and_leaves_the_layers_as_they_were() -> None:
    model, x, state = forgetful(0.5), torch.ones(5, 6), torch.get_rng_state()
    with dropout_from(model, 3):
        model(x)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError), dropout_from(model, 3):
        model(x[:, :5])
    assert not any("forward" in vars(layer) for layer in model)
    with dropout_from(model.eval(), 3):
        assert torch.equal(model(x), model[2](model[0](x)))


def test_what_drops() -> None:
    assert drops(forgetful(0.5))
    assert not drops(forgetful(0.0))
    assert not drops(nn.Sequential(nn.Linear(2, 2), nn.AlphaDropout(0.5)))
