"""What is taken from a model and put back is what was there, whatever its layers."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from support import one_line
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.merges.average import Contribution, average
from sheaf.models.flops import macs_per_example
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.structure import ChannelStructure

quick = settings(max_examples=25, deadline=None)


@cache
def anatomy_of(toy: type[nn.Module]) -> ChannelStructure:
    return trace(toy(), toys.SHAPE)


def theta_of(toy: type[nn.Module], seed: int = 0) -> dict[str, Tensor]:
    return toys.randomised(toy(), seed).state_dict()


@st.composite
def cuts(draw: st.DrawFn, structure: ChannelStructure, classes: bool = True) -> Cut:
    """Any cut that a model allows."""

    def some(count: int) -> set[int]:
        return draw(st.sets(st.integers(0, count - 1), min_size=1))

    chosen = [group for group in structure.groups if draw(st.booleans())]
    kept = {group.name: group.channels(some(group.units)) for group in chosen}
    return structure.cut(kept, some(structure.num_classes) if classes and draw(st.booleans()) else None)


every_toy = pytest.mark.parametrize("toy", toys.EVERY, ids=lambda toy: toy.__name__)


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
    structure = anatomy_of(toy)
    assert [(group.name, group.width, group.blocks) for group in structure.groups] == groups
    assert structure.num_classes == 5


def test_a_group_lists_all_layers_that_make_it():
    assert anatomy_of(toys.Residual).groups[0].layers == ("stem", "widen", "side")
    assert anatomy_of(toys.Depthwise).groups[0].layers == ("widen", "each", "excite")
    assert anatomy_of(toys.Dense).convolutions == ("a", "b", "c")


@every_toy
@quick
@given(data=st.data())
def test_what_is_put_back_is_what_was_taken(toy, data):
    structure, theta = anatomy_of(toy), theta_of(toy)
    part = structure.submodel(data.draw(cuts(structure)))
    bound = toys.bind(theta, [(part, part.take(theta), 3.0)], unheld="keep")
    assert all(torch.equal(bound[name], theta[name]) for name in theta)
    assert [bound[name].dtype for name in theta] == [value.dtype for value in theta.values()]

    taken = part.take(theta)
    zeroed = toys.bind(theta, [(part, taken, 3.0)], unheld="zero")
    again = part.take(zeroed)
    assert all(torch.equal(again[name], taken[name]) for name in theta)
    held = sum(value.numel() for value in taken.values())
    assert sum(int((value != 0).sum()) for value in zeroed.values()) == held  # no parameter is drawn as 0


@every_toy
@quick
@given(data=st.data())
def test_a_part_gives_among_zeros_what_it_gives_alone(toy, data):
    structure, theta = anatomy_of(toy), theta_of(toy)
    part = structure.submodel(data.draw(cuts(structure)))
    x = torch.randn(4, *toys.SHAPE, generator=torch.Generator().manual_seed(1))
    alone = toys.logits(part.module(), part.take(theta), x)
    zeroed = toys.bind(theta, [(part, part.take(theta), 1.0)], unheld="zero")
    torch.testing.assert_close(toys.logits(toy(), zeroed, x)[:, list(part.classes)], alone)


@every_toy
@quick
@given(data=st.data())
def test_every_coordinate_is_the_mean_over_its_holders(toy, data):
    structure, theta = anatomy_of(toy), theta_of(toy)
    weights = [2.0, 5.0, 0.5]
    parts = [structure.submodel(data.draw(cuts(structure))) for _ in weights]
    own = [part.take(theta_of(toy, seed)) for seed, part in enumerate(parts, start=1)]
    contributions = list(zip(parts, own, weights, strict=True))
    bound = toys.bind(theta, contributions, unheld="keep")

    totals = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in theta.items()}
    counts = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in theta.items()}
    ones = {name: torch.ones_like(value) for name, value in theta.items()}
    for part, params, weight in contributions:
        for sums, values in ((totals, params), (counts, part.take(ones))):
            spread = {name: torch.zeros_like(value) for name, value in theta.items()}
            part.place(spread, values)
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
def test_whole_parts_bind_to_the_average(toy):
    structure, theta = anatomy_of(toy), theta_of(toy)
    own = [(theta_of(toy, seed), weight) for seed, weight in ((1, 2.0), (2, 3.0), (3, 0.25))]
    whole = structure.submodel(structure.cut())
    bound = toys.bind(theta, ((whole, params, weight) for params, weight in own), unheld="zero")
    mean = average(theta, (Contribution(*each) for each in own))
    assert all(torch.equal(bound[name], mean[name]) for name in theta)


def test_there_must_be_something_to_bind():
    structure, theta = anatomy_of(toys.Plain), theta_of(toys.Plain)
    whole = structure.submodel(structure.cut())
    for contributions in ([], [(whole, theta, 0.0)]):
        with pytest.raises(ValueError, match="positive weight"):
            toys.bind(theta, contributions, unheld="keep")


@every_toy
@quick
@given(data=st.data())
def test_a_cut_passes_through_json_and_is_the_same_cut(toy, data):
    structure = anatomy_of(toy)
    cut = data.draw(cuts(structure))
    again = Cut.of(json.loads(json.dumps(cut.header())))
    assert again == cut
    assert hash(again) == hash(cut)
    assert structure.submodel(again) is structure.submodel(cut)


def test_a_block_is_small_on_the_wire():
    kept = {"0": range(2, 5), "3": range(8)}
    cut = anatomy_of(toys.Plain).cut(kept, classes=range(5))
    assert cut.header() == {"kept": {"0": [[2, 5]]}, "classes": None, "other": False}


@every_toy
def test_the_other_row_is_taken_off_the_classes(toy):
    structure, theta = anatomy_of(toy), theta_of(toy)
    cut = structure.cut({structure.groups[0].name: structure.groups[0].channels([0, 1])}, [1, 3], other=True)
    part, without = (
        structure.submodel(cut),
        structure.submodel(structure.cut(dict(anatomy_kept(cut)), [1, 3])),
    )
    x = torch.randn(4, *toys.SHAPE, generator=torch.Generator().manual_seed(1))
    taken = part.take(theta)
    start = toys.logits(part.module(), taken, x)
    torch.testing.assert_close(start[:, :2], toys.logits(without.module(), without.take(theta), x))
    assert not start[:, 2].any()

    head = structure.classifier.name
    for name in (f"{head}.weight", f"{head}.bias"):
        if name in taken:
            taken[name] = taken[name] + torch.arange(taken[name].numel()).view(taken[name].shape)
    z = toys.logits(part.module(), taken, x)
    folded = part.fold_other(taken)
    torch.testing.assert_close(toys.logits(without.module(), folded, x), z[:, :2] - z[:, 2:])
    one = toys.bind(theta, [(part, taken, 1.0)], unheld="zero")
    two = toys.bind(theta, [(without, folded, 1.0)], unheld="zero")
    assert all(torch.equal(one[name], two[name]) for name in theta)


def anatomy_kept(cut: Cut) -> dict[str, list[int]]:
    return {name: [i for run in runs for i in range(*run)] for name, runs in cut.kept}


def test_tracing_leaves_the_model_as_it_is():
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


def test_a_part_costs_the_square_of_its_width():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), nn.Flatten(1), nn.Linear(64 * 6, 8)
    )
    structure = trace(model, toys.SHAPE)
    quarter = {group.name: range(16, 32) for group in structure.groups}
    part = structure.submodel(structure.cut(quarter, [2, 3]))
    ratio = macs_per_example(model, toys.SHAPE) / macs_per_example(part.module(), toys.SHAPE)
    assert 13 < ratio < 16


class Choosy(toys.Plain):
    """Looks at values and holds a tensor of its own, so shapes alone do not run it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - torch.ones(3, 1, 1) if x.sum() >= 0 else -x)


def normalised_in_groups() -> nn.Module:
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 5, 1), *tail)


def test_models_that_shapes_alone_do_not_run():
    model = Choosy()
    draws = torch.random.get_rng_state()
    structure = trace(model, toys.SHAPE)
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert [group.name for group in structure.groups] == ["0", "3", "7"]


def test_group_normalisation_keeps_its_groups():
    structure = trace(normalised_in_groups(), toys.SHAPE)
    (group,) = structure.groups
    assert (group.width, group.blocks) == (12, 3)
    part = structure.submodel(structure.cut({"0": group.channels([1, 3])}, [0, 2]))
    assert part.module()(torch.zeros(2, *toys.SHAPE)).shape == (2, 2)


def test_an_other_row_needs_a_linear_layer():
    structure = trace(normalised_in_groups(), toys.SHAPE)
    with pytest.raises(CutError, match="ends in a linear layer, not Conv2d"):
        structure.cut(other=True)


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


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Flipped, "Flip"),
        (Mixed, "Softmax"),
        (Tied, "0.weight and again.weight are one parameter"),
        (Scaled, r"the model \(Scaled\) has parameters"),
        (Recurrent, r"rnn \(GRU\) has parameters"),
        (lambda: nn.Linear(3, 5), "a single layer"),
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8, 5)), "cannot be traced: Given"),
    ],
)
def test_what_cannot_be_cut_says_why(model, says):
    with pytest.raises(CutError, match=says) as error:
        trace(toys.randomised(model()) if model is not Tied else model(), toys.SHAPE)
    one_line(error)


@pytest.mark.parametrize(
    ("kept", "classes", "says"),
    [
        ({"9": [0]}, None, "no group '9'.*it has: 0, 2, 5"),
        ({"5": [6]}, None, "the channels of '5' must be from 0 to 5"),
        ({"5": []}, None, "the channels of '5' cannot all be removed"),
        ({"2": [0, 1]}, None, "same positions in each of 2 blocks of 6"),
        ({}, [5], "the classes must be different numbers from 0 to 4"),
        ({}, [], "the classes cannot all be removed"),
    ],
)
def test_cuts_that_do_not_fit(kept, classes, says):
    with pytest.raises(CutError, match=says) as error:
        anatomy_of(toys.Grouped).cut(kept, classes)
    one_line(error)


@pytest.mark.parametrize("header", [{}, {"kept": 3}, {"kept": {"0": [[1]]}, "classes": None, "other": False}])
def test_a_strange_header_is_refused(header):
    with pytest.raises(CutError, match="header"):
        Cut.of(header)


@pytest.mark.parametrize("runs", [[[0, 2], [1, 3]], [[2, 4], [0, 1]], [[0, 10**12]], [[3, 3]], [[-1, 2]], []])
def test_a_cut_from_the_wire_is_checked(runs):
    header = {"kept": {"0": runs}, "classes": None, "other": False}
    with pytest.raises(CutError, match="the channels of '0'"):
        anatomy_of(toys.Grouped).submodel(Cut.of(header))


@pytest.mark.parametrize("width", [0.0, 1.5])
def test_a_width_is_a_fraction(width):
    with pytest.raises(CutError, match="a's width is"):
        SiteNeeds("a", (0,), width)
