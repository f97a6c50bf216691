"""A fleet's file: groups, labels, and the devices that patterns select."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w
from support import one_line

from sheaf.core.errors import FleetError
from sheaf.core.settings import plain
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.provision import FleetFile

FLEET = FleetFile(
    host="localhost",
    edges=("shop-1", "shop-2", "van"),
    groups={"shop-1": "berlin", "van": "berlin"},
    labels={"shop-2": ("camera-v2", "gpu")},
)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ([], ["shop-1", "shop-2", "van"]),
        (["shop-*"], ["shop-1", "shop-2"]),
        (["berlin/*"], ["shop-1", "van"]),
        (["van", "berlin/shop-?"], ["shop-1", "van"]),
        (["label:camera-*", "van"], ["shop-2", "van"]),
    ],
)
def test_patterns_select_devices_in_their_order(patterns: list[str], chosen: list[str]) -> None:
    assert list(FLEET.choose(patterns)) == chosen


def test_a_pattern_without_a_device_is_refused() -> None:
    with pytest.raises(
        FleetError, match=r"--edges rome/\*: no device matches; there are: berlin/\*, "
    ) as error:
        FLEET.choose(["van", "rome/*"])
    one_line(error)


def test_labels_and_groups_are_changed(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(tomli_w.dumps(plain(FLEET)))
    provision.label(tmp_path, "shop-2", group="rome", add=["new", "gpu"], drop=["camera-v2"])
    provision.label(tmp_path, "van", group="")
    fleet = provision.read(tmp_path)
    assert fleet.groups == {"shop-1": "berlin", "shop-2": "rome"}
    assert fleet.labels == {"shop-2": ("gpu", "new")}
    with pytest.raises(FleetError, match="a group or a label cannot be named 'a/b'"):
        provision.label(tmp_path, "van", add=["a/b"])
    provision.remove(tmp_path, "shop-2")
    assert provision.read(tmp_path).labels == {}
