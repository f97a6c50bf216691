"""A sub-model is taken, run and put back, in networks with every kind of coupling."""

from __future__ import annotations

import json

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sheaf.core.cut import Cut
from sheaf.merges.average import Contribution, average
from sheaf.models.flops import macs_per_example
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.structure import ChannelStructure

quick = settings(max_examples=25, deadline=None)
every_toy = pytest.mark.parametrize("toy", toys.EVERY, ids=lambda toy: toy.__name__)


@st.composite
def cuts(draw: st.DrawFn, structure: ChannelStructure, classes: bool = True) -> Cut:
    """Any cut that a model allows."""

    def some(count: int) -> set[int]:
        return draw(st.sets(st.integers(0, count - 1), min_size=1))

    chosen = [group for group in structure.groups if draw(st.booleans())]
    kept = {group.name: group.channels(some(group.units)) for group in chosen}
    return structure.cut(kept, some(structure.num_classes) if classes and draw(st.booleans()) else None)


@every_toy
@quick
@given(data=st.data())
def test_put_restores_the_parameters_taken(toy, data):
    structure, theta = toys.structure_of(toy), toys.theta_of(toy)
    submodel = structure.submodel(data.draw(cuts(structure)))
    bound = toys.bind(theta, [(submodel, submodel.take(theta), 3.0)], unheld="keep")
    assert all(torch.equal(bound[name], theta[name]) for name in theta)
    assert [bound[name].dtype for name in theta] == [value.dtype for value in theta.values()]

    taken = submodel.take(theta)
    zeroed = toys.bind(theta, [(submodel, taken, 3.0)], unheld="zero")
    again = submodel.take(zeroed)
    assert all(torch.equal(again[name], taken[name]) for name in theta)
    held = sum(value.numel() for value in taken.values())
    assert sum(int((value != 0).sum()) for value in zeroed.values()) == held  # no parameter is drawn as 0


@every_toy
@quick
@given(data=st.data())
def test_logits_are_the_same_alone_and_among_zeros(toy, data):
    structure, theta = toys.structure_of(toy), toys.theta_of(toy)
    submodel = structure.submodel(data.draw(cuts(structure)))
    x = torch.randn(4, *toys.SHAPE, generator=torch.Generator().manual_seed(1))
    alone = toys.logits(submodel.module(), submodel.take(theta), x)
    zeroed = toys.bind(theta, [(submodel, submodel.take(theta), 1.0)], unheld="zero")
    torch.testing.assert_close(toys.logits(toy(), zeroed, x)[:, list(submodel.classes)], alone)


@every_toy
@quick
@given(data=st.data())
def test_every_coordinate_is_the_mean_over_its_holders(toy, data):
    structure, theta = toys.structure_of(toy), toys.theta_of(toy)
    weights = [2.0, 5.0, 0.5]
    submodels = [structure.submodel(data.draw(cuts(structure))) for _ in weights]
    own = [submodel.take(toys.theta_of(toy, seed)) for seed, submodel in enumerate(submodels, start=1)]
    contributions = list(zip(submodels, own, weights, strict=True))
    bound = toys.bind(theta, contributions, unheld="keep")

    totals = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in theta.items()}
    counts = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in theta.items()}
    ones = {name: torch.ones_like(value) for name, value in theta.items()}
    for submodel, params, weight in contributions:
        for sums, values in ((totals, params), (counts, submodel.take(ones))):
            spread = {name: torch.zeros_like(value) for name, value in theta.items()}
            submodel.place(spread, values)
            for name in theta:
                sums[name] += weight * spread[name].double()
    for name, value in theta.items():
        if value.is_floating_point():
            mean = (totals[name] / counts[name]).to(value.dtype)
            torch.testing.assert_close(bound[name], torch.where(counts[name] > 0, mean, value))

    backwards = toys.bind(theta, contributions[::-1], unheld="keep")
    for name in theta:
        torch.testing.assert_close(bound[name], backwards[name], rtol=1e-6, atol=1e-6)


@every_toy
def test_whole_sub_models_bind_to_the_average(toy):
    structure, theta = toys.structure_of(toy), toys.theta_of(toy)
    own = [(toys.theta_of(toy, seed), weight) for seed, weight in ((1, 2.0), (2, 3.0), (3, 0.25))]
    whole = structure.submodel(structure.cut())
    bound = toys.bind(theta, ((whole, params, weight) for params, weight in own), unheld="zero")
    mean = average(theta, (Contribution(*each) for each in own))
    assert all(torch.equal(bound[name], mean[name]) for name in theta)


def test_an_average_needs_a_positive_weight():
    structure, theta = toys.structure_of(toys.Plain), toys.theta_of(toys.Plain)
    whole = structure.submodel(structure.cut())
    for contributions in ([], [(whole, theta, 0.0)]):
        with pytest.raises(ValueError, match="positive weight"):
            toys.bind(theta, contributions, unheld="keep")


@every_toy
@quick
@given(data=st.data())
def test_a_cut_survives_json(toy, data):
    structure = toys.structure_of(toy)
    cut = data.draw(cuts(structure))
    again = Cut.of(json.loads(json.dumps(cut.header())))
    assert again == cut
    assert hash(again) == hash(cut)
    assert structure.submodel(again) is structure.submodel(cut)


@every_toy
def test_the_other_row_is_subtracted_from_the_classes(toy):
    structure, theta = toys.structure_of(toy), toys.theta_of(toy)
    cut = structure.cut({structure.groups[0].name: structure.groups[0].channels([0, 1])}, [1, 3], other=True)
    submodel, without = (
        structure.submodel(cut),
        structure.submodel(structure.cut(dict(channels_of(cut)), [1, 3])),
    )
    x = torch.randn(4, *toys.SHAPE, generator=torch.Generator().manual_seed(1))
    taken = submodel.take(theta)
    start = toys.logits(submodel.module(), taken, x)
    torch.testing.assert_close(start[:, :2], toys.logits(without.module(), without.take(theta), x))
    assert not start[:, 2].any()

    head = structure.classifier.name
    for name in (f"{head}.weight", f"{head}.bias"):
        if name in taken:
            taken[name] = taken[name] + torch.arange(taken[name].numel()).view(taken[name].shape)
    z = toys.logits(submodel.module(), taken, x)
    folded = submodel.fold_other(taken)
    torch.testing.assert_close(toys.logits(without.module(), folded, x), z[:, :2] - z[:, 2:])
    one = toys.bind(theta, [(submodel, taken, 1.0)], unheld="zero")
    two = toys.bind(theta, [(without, folded, 1.0)], unheld="zero")
    assert all(torch.equal(one[name], two[name]) for name in theta)


def channels_of(cut: Cut) -> dict[str, list[int]]:
    return {name: [i for run in runs for i in range(*run)] for name, runs in cut.kept}


def test_cost_is_the_square_of_the_width():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), nn.Flatten(1), nn.Linear(64 * 6, 8)
    )
    structure = trace(model, toys.SHAPE)
    quarter = {group.name: range(16, 32) for group in structure.groups}
    submodel = structure.submodel(structure.cut(quarter, [2, 3]))
    ratio = macs_per_example(model, toys.SHAPE) / macs_per_example(submodel.module(), toys.SHAPE)
    assert 13 < ratio < 16
