"""Which edge has which device."""

from __future__ import annotations

from collections import Counter

import pytest

from sheaf.core.errors import SettingError, SheafError
from sheaf.core.settings import parse
from sheaf.profiles.assignment import DevicesSettings, assign_devices

EDGES = [f"edge-{number}" for number in range(400)]


def test_named_edges_have_their_profile_and_the_others_are_drawn_from_the_mix() -> None:
    mix = {"raspberry-pi-4+lte": 3.0, "jetson-nano": 1.0}
    given = DevicesSettings(edges={"edge-7": "laptop+wifi"}, mix=mix)
    devices = assign_devices(given, EDGES, seed=1)
    names = {site: profile.name for site, profile in devices.profiles.items()}
    assert names.pop("edge-7") == "laptop+wifi"
    assert names.pop("cloud") == "cloud-gpu"
    assert devices.profiles["cloud"].link is None
    counts = Counter(names.values())
    assert counts["raspberry-pi-4+lte"] / 399 == pytest.approx(0.75, abs=0.06)
    again = assign_devices(given, EDGES[:9], seed=1)  # a device does not depend on the others
    assert {site: again.profiles[site].name for site in EDGES[:7]} == {
        site: names[site] for site in EDGES[:7]
    }
    assert assign_devices(given, EDGES, seed=2).profiles != devices.profiles


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"edges": {"edge-1": "laptop"}}, "fleet.devices gives edge-0 no profile; add it to"),
        ({"edges": {"shop": "laptop"}}, "no edge is named 'shop'"),
        ({"mix": {"laptop+lt": 1}}, r"no profile is named 'lt' \(did you mean 'lte'"),
        ({"mix": {"laptop": 1}, "cloud": "lte"}, "profile 'lte' has no \\[device\\]"),
    ],
)
def test_a_mistake_is_one_line(table: dict[str, object], message: str) -> None:
    with pytest.raises(SheafError, match=message):
        assign_devices(parse(DevicesSettings, table), EDGES[:2], 0)


def test_a_trace_and_drawn_durations_exclude_each_other() -> None:
    with pytest.raises(SettingError, match="trace and on are both set"):
        parse(DevicesSettings, {"mix": {"laptop": 1}, "trace": "a.csv", "on": 5.0}, "fleet.devices")
