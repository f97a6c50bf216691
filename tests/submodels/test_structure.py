"""A cut is checked against the model, and has one form."""

from __future__ import annotations

import pytest
import toys
from support import one_line

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.submodels.dependency_graph import trace


def test_a_header_holds_runs_and_omits_whole_groups():
    kept = {"0": range(2, 5), "3": range(8)}
    cut = toys.structure_of(toys.Plain).cut(kept, classes=range(5))
    assert cut.header() == {"kept": {"0": [[2, 5]]}, "classes": None, "other": False}


def test_an_other_row_needs_a_linear_layer():
    structure = trace(toys.normalised_in_groups(), toys.SHAPE)
    with pytest.raises(CutError, match="ends in a linear layer, not Conv2d"):
        structure.cut(other=True)


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
def test_a_cut_that_does_not_fit_is_refused(kept, classes, says):
    with pytest.raises(CutError, match=says) as error:
        toys.structure_of(toys.Grouped).cut(kept, classes)
    one_line(error)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kept": 3},
        {"kept": {"0": [[1]]}, "classes": None, "other": False},
        {"kept": {"0": [[0, 1.9]]}, "classes": None, "other": False},
        {"kept": {}, "classes": ["3"], "other": False},
        {"kept": {}, "classes": [True], "other": False},
        {"kept": {}, "classes": None, "other": 1},
    ],
)
def test_a_malformed_header_is_refused(header):
    with pytest.raises(CutError, match="header"):
        Cut.of(header)


@pytest.mark.parametrize("runs", [[[0, 2], [1, 3]], [[2, 4], [0, 1]], [[0, 10**12]], [[3, 3]], [[-1, 2]], []])
def test_a_cut_from_the_wire_is_checked(runs):
    header = {"kept": {"0": runs}, "classes": None, "other": False}
    with pytest.raises(CutError, match="the channels of '0'"):
        toys.structure_of(toys.Grouped).submodel(Cut.of(header))
