"""What is read off a network once, however many sites hold a part of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import SHAPE, Plain, randomised

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.models import flops
from sheaf.training import network as module
from sheaf.training.evaluation import Evaluation
from sheaf.training.network import Macs, Network, Traits

HALF = Cut((("3", ((0, 4),)),), classes=(1, 3))


def first(count: int) -> Cut:
    """The first channels of the second convolution."""
    return Cut((("3", ((0, count),)),))


def test_the_whole_needs_no_tracing() -> None:
    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :5].detach()

    model = Untraceable()
    network = Network(model, SHAPE)
    assert network.of(None) is model
    assert network.macs().forward == 0
    with pytest.raises(CutError):
        _ = network.structure


def test_a_part_is_a_smaller_network_of_its_own() -> None:
    model = randomised(Plain())
    network = Network(model, SHAPE)
    part = network.of(HALF)
    assert network.of(HALF) is part, "the same cut again costs nothing"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    part.load_state_dict(network.submodel(HALF).take(model.state_dict()))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(1)
    assert part(torch.zeros(2, *SHAPE)).shape == (2, 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_macs_are_those_of_the_part() -> None:
    network = Network(Plain(), SHAPE)
    part = network.of(HALF)
    assert network.macs(HALF) == Macs(
        flops.macs_per_example(part, SHAPE), flops.train_macs_per_example(part, SHAPE)
    )
    assert (
        network.macs()
        == network.macs(None)
        == Macs(flops.macs_per_example(Plain(), SHAPE), flops.train_macs_per_example(Plain(), SHAPE))
    )
    assert network.macs(HALF).forward < network.macs().forward < network.macs().train


def test_the_numbers_are_those_of_the_part() -> None:
    network = Network(Plain(), SHAPE)
    for cut in (None, HALF):
        state = network.of(cut).state_dict()
        assert network.num_parameters(cut) == sum(value.numel() for value in state.values())
    assert network.num_parameters(HALF) < network.num_parameters()


def test_old_parts_make_room_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED", 2)
    network = Network(Plain(), SHAPE)
    one, two = network.of(first(1)), network.of(first(2))
    network.of(first(3))
    assert network.of(first(2)) is two
    again = network.of(first(1))
    assert again is not one
    assert again.state_dict().keys() == one.state_dict().keys()
    assert len(network._modules) == 2


def test_a_window_that_moves_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(Plain(), SHAPE)
    counted = network.macs(first(4))
    monkeypatch.setattr(module.flops, "macs_per_example", None)
    assert network.macs(Cut((("3", ((2, 6),)),))) is counted
    assert network.traits(first(4)) is network.traits(Cut((("3", ((2, 6),)),)))
    assert network.traits() == Traits(convolves=True, draws=False, stacks=False)


def test_what_was_measured_is_at_hand_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED", 2)
    network, measured = Network(Plain(), SHAPE), []

    def measure(what: str) -> Evaluation:
        measured.append(what)
        return Evaluation(torch.ones(1), 0.5, torch.ones(1))

    for what in ("a", "a", "b", "a", "c", "b", "a"):
        assert network.evaluated(what, lambda what=what: measure(what))[1] == 0.5
    assert measured == ["a", "b", "c", "a"]
