"""Error messages: the nearest known name, and the first line."""

from __future__ import annotations

import pytest
from support import one_line

from sheaf.core.errors import DataError, UnknownNameError, first_line


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


def test_many_names_are_counted() -> None:
    with pytest.raises(UnknownNameError) as error:
        raise UnknownNameError("model", "net7x", [f"net{k}" for k in range(500)])
    assert one_line(error) == "no model is named 'net7x' (did you mean 'net7'?); there are: 500 names"


def test_a_message_is_one_line_whatever_names_it_contains() -> None:
    name = "a\nb\x1b[2J\u2028\udce9\x00"
    assert str(DataError(f"no folder {name}; correct it")) == (
        "no folder a\\nb\\x1b[2J\\u2028\\udce9\\x00; correct it"
    )
    assert str(DataError("caf\u00e9 \U0001f469\u200d\U0001f52c")) == "caf\u00e9 \U0001f469\u200d\U0001f52c"
    long = str(DataError("unknown key " + 10_000 * "x" + "; remove it"))
    assert len(long) < 3010
    assert long.startswith("unknown key xxx")
    assert long.endswith("xxx; remove it")
