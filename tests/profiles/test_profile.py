"""Profiles: every shipped one is complete and has a source for each figure; mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import one_line

from sheaf.core.errors import SheafError
from sheaf.profiles.profile import find_profile, read_profile
from sheaf.profiles.shipped import shipped_profiles

DEVICE = "[device]\nmemory = 1e9\nmacs_per_second = { float32 = 2e9, bfloat16 = 6e9 }\n"


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_figure_of_a_shipped_profile_has_a_source(name: str) -> None:
    profile = read_profile(name)
    described = profile.device or profile.link
    assert profile.title
    assert described is not None
    figures = {key for key, value in vars(described).items() if value not in (0.0, None)}
    assert figures <= profile.sources.keys() <= vars(described).keys()
    if profile.device is not None:
        assert profile.device.watts_idle is not None
        assert profile.device.watts_busy is not None
        assert profile.device.watts_idle < profile.device.watts_busy


def test_the_shipped_devices_are_ordered_as_people_expect() -> None:
    slowest_first = (
        "raspberry-pi-4", "raspberry-pi-5", "jetson-nano", "laptop", "jetson-xavier-nx", "jetson-orin-nano",
        "cloud-gpu",
    )  # fmt: skip
    speeds = [find_profile(name).device.speed("float32") for name in slowest_first]
    assert speeds == sorted(speeds)
    links = [find_profile(f"laptop+{name}").link for name in ("lora", "lte", "wifi", "ethernet")]
    sizes = [link.up for link in links if link is not None]
    assert sizes == sorted(sizes)
    assert len(shipped_profiles()) == len(slowest_first) + len(links)


def test_durations_and_joules_of_a_task(tmp_path: Path) -> None:
    link = "[link]\nup = 100.0\ndown = 200.0\ndelay_up = 1.0\nloss = 0.5\nwatts_sending = 4.0\n"
    (tmp_path / "own.toml").write_text(DEVICE + "watts_idle = 2.0\nwatts_busy = 10.0\n" + link)
    profile = find_profile(str(tmp_path / "own.toml"))
    assert profile.link is not None
    assert profile.link.seconds_up(500) == 1 + 500 / 50  # each byte is sent twice on average
    assert profile.link.seconds_down(500) == 500 / 100
    assert profile.joules(3.0, 5.0, 7.0) == 2 * 3 + 10 * 5 + (2 + 4) * 7
    assert profile.device.speed("bfloat16") == profile.device.speed("auto") == 6e9
    assert find_profile("raspberry-pi-4").device.speed("bfloat16") == 5.9e9
    (tmp_path / "no-watts.toml").write_text(DEVICE)
    assert find_profile(str(tmp_path / "no-watts.toml")).joules(1, 1, 1) is None


MISTAKES = {
    DEVICE.replace("1e9", "-1"): "device.memory = -1: input should be greater than 0",
    DEVICE.replace("float32", "int8"): "int8",
    DEVICE.replace("float32 = 2e9, ", ""): "macs_per_second needs float32",
    DEVICE + "watts = 3": "unknown key device.watts",
    "[link]\nup = 1.0\ndown = 1.0\nloss = 1.0": "link.loss = 1.0: input should be less than 1",
    "[link": "cannot be read as TOML",
    "title = 'nothing'": "has no [device]",
    "[link]\nup = 1.0\ndown = 1.0": "has no [device]",
    "\udcff": "cannot be read as TOML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_profile_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SheafError) as error:
        find_profile(str(path))
    message = one_line(error)
    assert MISTAKES[text] in message
    assert "own.toml" in message


def test_names_that_do_not_exist() -> None:
    with pytest.raises(SheafError, match=r"no profile is named 'raspbery-pi-4' \(did you mean 'raspberry-pi"):
        find_profile("raspbery-pi-4")
    with pytest.raises(SheafError, match=r"profile 'laptop' has no \[link\]"):
        find_profile("raspberry-pi-4+laptop")
    with pytest.raises(SheafError, match="cannot be read as TOML"):
        find_profile("raspberry-pi-4+")
