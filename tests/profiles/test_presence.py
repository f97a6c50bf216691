"""When simulated devices are connected, by a seeded trace or by a file of one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from support import one_line

from sheaf.core.errors import SettingError
from sheaf.profiles.presence import Presence, read_trace


def test_a_trace_says_when_devices_leave_and_return() -> None:
    presence = Presence({"a": [10.0, 20.0, 30.0], "b": []})
    assert [presence.back_at("a", time) for time in (0, 9.9, 10, 15, 20, 25)] == [0, 9.9, 20, 20, 20, 25]
    assert presence.back_at("a", 30) == math.inf
    assert presence.leaves_at("a", 5, longer=10) == 10
    assert presence.leaves_at("a", 5, longer=11) == 30  # for good
    assert presence.leaves_at("a", 20, longer=0) == 30
    assert presence.away("a", 35) == [(10, 20), (30, 35)]
    assert presence.away("a", 15) == [(10, 15)]
    assert presence.leaves_at("b", 5, longer=0) == math.inf
    assert presence.away("b", 100) == []
    assert not presence.always
    assert Presence({}).always


def test_drawn_durations_have_their_means_and_follow_from_the_seed() -> None:
    def away(seed: int) -> dict[str, list[tuple[float, float]]]:
        presence = Presence({}, on=30, off=10, seed=seed)
        presence.back_at("edge-1", 5e4)  # the order of questions does not matter
        return {site: presence.away(site, 1e5) for site in ("edge-0", "edge-1", "edge-2")}

    first = away(1)
    assert first == away(1)
    assert first != away(2)
    assert first["edge-0"] != first["edge-1"]
    for intervals in first.values():
        lengths = [end - start for start, end in intervals]
        assert sum(lengths) / 1e5 == pytest.approx(0.25, abs=0.02)
        assert sum(lengths) / len(lengths) == pytest.approx(10, rel=0.1)


def test_a_file_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("device, seconds, state\na,0,off\na,5,on\n\na,6,on\nb,2.5,off\n")
    changes = read_trace(path, ("a", "b", "c"))
    assert changes == {"a": [0.0, 5.0], "b": [2.5], "c": []}
    assert Presence(changes).back_at("a", 0) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "x,1,off": "row 1: no edge is named 'x'; edges: a, b",
        "a,1,gone": "row 1: state 'gone'; allowed: on, off",
        "a,-1,off": "row 1: seconds '-1'; allowed: a number of at least 0",
        "a,nan,off": "row 1: seconds 'nan'",
        "a,2,off\na,1,on": "row 2: 1 s comes before an earlier row of a; sort the rows by time",
        "a,1": "row 1: 2 columns, expected device, seconds and on or off",
    }.items(),
)
def test_a_mistake_in_a_trace_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(SettingError) as error:
        read_trace(path, ("a", "b"))
    assert message in one_line(error)


def test_a_missing_trace_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_trace(tmp_path / "none.csv", ("a",))
