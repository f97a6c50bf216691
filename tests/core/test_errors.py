"""Error messages: the nearest known name, and the first line."""

from __future__ import annotations

import pytest
from support import one_line

from sheaf.core.errors import UnknownNameError, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad value"), "bad value"),
        (ValueError("bad value\nand details"), "bad value"),
        (ValueError("\n  bad value\ndetails"), "bad value"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(("name", "hint"), [("meen", " (did you mean 'mean'?)"), ("xyz", "")])
def test_an_unknown_name_suggests_a_similar_one(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        raise UnknownNameError("merge", name, ["median", "mean"])
    assert one_line(error) == f"no merge is named '{name}'{hint}; there are: mean, median"
