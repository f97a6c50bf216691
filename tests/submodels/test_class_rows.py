"""Averages of sub-models in which a site counts only in its own classes' rows, against HeteroFL's code."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from sheaf.core.cut import Cut
from sheaf.merges.average import Contribution, average
from sheaf.submodels.class_rows import rows_of
from sheaf.submodels.dependency_graph import trace
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.schemes.prefix import Prefix

LAYERS = OrderedDict(f=nn.Flatten()) | {"0": nn.Linear(2, 4), "1": nn.ReLU(), "2": nn.Linear(4, 3)}
STRUCTURE = trace(nn.Sequential(OrderedDict(LAYERS)), (2, 1, 1))
THETA = {
    "0.weight": torch.arange(8.0).view(4, 2),
    "0.bias": torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "2.weight": torch.arange(12.0).view(3, 4) / 2,
    "2.bias": torch.tensor([0.5, 1.5, 2.5]),
}
SITES = [SiteNeeds("a", (0, 1), 1.0), SiteNeeds("b", (1, 2), 0.5)]
FIGURES = {
    "0.weight": [[1.5, 2.5], [3.5, 4.5], [5.0, 6.0], [7.0, 8.0]],
    "0.bias": [4.0, 5.0, 5.0, 6.0],
    "2.weight": [[3.0, 3.5, 4.0, 4.5], [6.5, 7.0, 6.0, 6.5], [10.0, 10.5, 5.0, 5.5]],
    "2.bias": [4.5, 7.5, 10.5],
}
"""The result of ``Federation.combine`` in the authors' repository (diaoenmao/HeteroFL-…, cc40f3e) for model
"conv", rates 1 and 0.5, label splits [0, 1] and [1, 2], where user m adds m n to its n-th tensor (from 1)."""


def test_the_average_is_that_of_heterofls_code() -> None:
    contributions = []
    for m, (site, cut) in enumerate(zip(SITES, Prefix()(STRUCTURE, SITES, 0).values(), strict=True), start=1):
        taken = STRUCTURE.submodel(cut).take(THETA)
        sent = {name: value + m * n for n, (name, value) in enumerate(taken.items(), start=1)}
        own, params = rows_of(STRUCTURE, cut, sent, site.classes)
        contributions.append(Contribution(params, 1.0, STRUCTURE.submodel(own)))
    merged = average(THETA, contributions)
    assert {name: value.tolist() for name, value in merged.items()} == FIGURES


def test_a_site_with_all_classes_keeps_all_rows() -> None:
    cut, params = rows_of(STRUCTURE, None, THETA, (0, 1, 2))
    assert cut == Cut()
    assert params == THETA


def test_a_cut_by_classes_stays_as_it_is() -> None:
    cut = ByClass()(STRUCTURE, [SITES[0], SiteNeeds("c", (2,))], 0)["a"]
    taken = STRUCTURE.submodel(cut).take(THETA)
    own, params = rows_of(STRUCTURE, cut, taken, (0,))
    assert own == cut
    assert params == taken
