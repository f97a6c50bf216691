"""Every scheme of cuts; sub-models without common blocks bind without loss."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sheaf.core import registry
from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.models.names import model_names
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.schemes.rolling import Rolling
from sheaf.submodels.structure import ChannelGroup, ChannelStructure

SITES = [SiteNeeds("a", (0, 1, 4), 1.0), SiteNeeds("b", (2,), 0.3), SiteNeeds("c", (3, 5), 0.5)]


@pytest.fixture(scope="module")
def structure() -> ChannelStructure:
    layers = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=2), nn.Conv2d(12, 16, 1)]
    return trace(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6)), toys.SHAPE)


def held(structure: ChannelStructure, cut: Cut, group: ChannelGroup) -> list[int]:
    runs = dict(cut.kept).get(group.name, ((0, group.width),))
    return [channel for run in runs for channel in range(*run)]


@pytest.mark.parametrize("name", registry.describe("cuts"))
def test_every_cut_fits_the_model(name, structure):
    scheme = registry.load("cuts", name)()
    for turn in (0, 1, 17):
        made = scheme(structure, SITES, turn)
        assert list(made) == [site.name for site in SITES]
        assert made == scheme(structure, SITES, turn)
        for cut in made.values():
            structure.submodel(Cut.of(cut.header())).module()


@pytest.mark.parametrize("name", ["whole", "prefix", "rolling"])
def test_a_width_of_one_is_the_whole_model(name, structure):
    made = registry.load("cuts", name)()(structure, SITES, 3)
    assert made["a"] == structure.cut()
    assert (made["b"] == structure.cut()) == (name == "whole")


def test_prefix_is_the_first_channels(structure):
    cut = registry.load("cuts", "prefix")()(structure, SITES, 5)["b"]
    assert dict(cut.kept) == {"0": ((0, 2), (4, 6)), "1": ((0, 2), (6, 8)), "2": ((0, 5),)}
    assert cut.classes is None


def test_rolling_moves_by_one_and_wraps_around(structure):
    last = structure.groups[-1]
    windows = [held(structure, Rolling()(structure, SITES, turn)["b"], last) for turn in range(32)]
    assert windows[0] == [0, 1, 2, 3, 4]
    assert windows[13] == [0, 1, 13, 14, 15]
    assert windows[:16] == windows[16:]
    assert set(Counter(channel for window in windows for channel in window).values()) == {10}


def test_rolling_has_the_windows_of_fedrolexs_code():
    """Channels 0 to 3, width 0.5: ``torch.roll(arange(4), round)[:2]`` in resnet_server.py (8135109).

    The code moves the window down by one each round, the paper (section 3.2) and this scheme up.
    """
    of_code = [[0, 1], [3, 0], [2, 3], [1, 2]]
    layers = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)]
    small = trace(nn.Sequential(*layers), toys.SHAPE)
    site = [SiteNeeds("a", (0,), 0.5)]
    windows = [held(small, Rolling()(small, site, turn)["a"], small.groups[0]) for turn in range(4)]
    assert windows == [sorted(window) for window in of_code[:1] + of_code[:0:-1]]


@st.composite
def sites(draw: st.DrawFn) -> list[SiteNeeds]:
    """Draw up to four sites without a common class; some classes may have no site."""
    owner = draw(st.lists(st.integers(0, 4), min_size=6, max_size=6))
    widths = draw(st.lists(st.floats(0.05, 1), min_size=4, max_size=4))
    own = [tuple(c for c in range(6) if owner[c] == number) for number in range(4)]
    made = [SiteNeeds(f"s{number}", own[number], widths[number]) for number in range(4) if own[number]]
    return made or [SiteNeeds("s0", (0, 5))]


@settings(max_examples=40, deadline=None)
@given(made=sites(), by=st.sampled_from(["classes", "width"]), stem=st.integers(0, 3))
def test_blocks_of_disjoint_classes_fill_every_group(structure, made, by, stem):
    cuts = ByClass(stem=stem, by=by)(structure, made, 0)
    total = sum(len(site.classes) for site in made)
    for depth, group in enumerate(structure.groups):
        holders = Counter(channel for cut in cuts.values() for channel in held(structure, cut, group))
        assert set(holders) == set(range(group.width))
        assert set(holders.values()) == ({len(made)} if depth < stem else {1})
        if by == "classes" and depth >= stem and group.units >= total:
            for site in made:
                exact = group.width * len(site.classes) / total
                assert abs(len(held(structure, cuts[site.name], group)) - exact) < group.blocks
    assert [structure.submodel(cuts[site.name]).classes for site in made] == [site.classes for site in made]


def test_a_class_of_two_sites_has_the_same_channels_on_both(structure):
    both = [SiteNeeds("a", (0, 1, 2)), SiteNeeds("b", (2, 3))]
    cuts, last = ByClass()(structure, both, 0), structure.groups[-1]
    assert held(structure, cuts["a"], last) == list(range(12))
    assert held(structure, cuts["b"], last) == list(range(8, 16))


def test_width_narrows_the_blocks(structure):
    cuts, last = ByClass(width=0.5)(structure, SITES, 0), structure.groups[-1]
    assert [len(held(structure, cut, last)) for cut in cuts.values()] == [4, 2, 3]


def test_more_sites_than_channels_are_refused(structure):
    many = [SiteNeeds(f"s{number}", (number,)) for number in range(6)]
    with pytest.raises(CutError, match=r"4 independent channels of '0' are too few for 6 sites"):
        ByClass()(structure, many, 0)
    ByClass(stem=1)(structure, many, 0)
    with pytest.raises(CutError, match="b has no classes"):
        ByClass()(structure, [SiteNeeds("a", (0,)), SiteNeeds("b", ())], 0)


THIRDS = [SiteNeeds("a", (0, 4)), SiteNeeds("b", (1, 2)), SiteNeeds("c", (3, 5))]
SHAPES = {"alexnet": (3, 63, 63), "kws_cnn": (1, 40, 63)}


@pytest.mark.parametrize("name", model_names())
def test_the_bound_model_has_the_logits_of_every_site(name):
    """The harvest loses nothing, with one common stem or none, to 1e-5 of the largest logit.

    The large models are thinned: the number of channels in a group does not change how groups are coupled.
    """
    shape = SHAPES.get(name, (3, 32, 32))
    model = toys.randomised(toys.thinned(name, 6, shape), blocks=3)
    structure, theta = trace(model, shape), model.state_dict()
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    for stem in (0, 2):
        cuts = ByClass(stem=stem)(structure, THIRDS, 0)
        submodels = {site: structure.submodel(cut) for site, cut in cuts.items()}
        taken = {site: submodel.take(theta) for site, submodel in submodels.items()}
        own = {site: toys.logits(submodels[site].module(), taken[site], x) for site in submodels}
        updates = ((submodel, taken[site], 2.0 + len(site)) for site, submodel in submodels.items())
        together = toys.logits(model, toys.bind(theta, updates, unheld="zero"), x)
        for site, submodel in submodels.items():
            off = (together[:, list(submodel.classes)] - own[site]).abs().max() / own[site].abs().max()
            assert off < 1e-5
            assert own[site].std(0).min() > 1e-3 * own[site].abs().max()  # the logits depend on the inputs
