"""The state of each device, of the cloud and of the run, from files of any age."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from made_up_fleet import write_fleet, write_models, write_presence, write_run

from sheaf.core.errors import FleetError
from sheaf.fleets.remote.status import Skip
from sheaf.report.fleet_page.snapshot import Reader, Snapshot

DEVICES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return write_fleet(tmp_path / "fleet", DEVICES, ["old"])


def seen(fleet: Path) -> Snapshot:
    return Reader(fleet, fleet / "service").snapshot(time.time())


def states(fleet: Path) -> dict[str, str]:
    return {device.name: device.state for device in seen(fleet).devices}


def test_a_fleet_that_was_never_started(fleet: Path) -> None:
    snapshot = seen(fleet)
    assert set(states(fleet).values()) == {"new", "removed"}
    assert (snapshot.cloud_is_running, snapshot.run_state, snapshot.connected) == (False, "none", 0)


def test_devices_in_a_run(fleet: Path) -> None:
    write_presence(fleet, {"a": 1, "b": 2, "c": 3, "d": 40, "e": 5})
    write_run(
        fleet,
        {
            "a": {"state": "training", "done": 1, "steps": 2},
            "b": {"state": "refused", "why": "not finite"},
            "c": {"state": "waiting"},
            "d": {"state": "training"},
        },
    )
    assert states(fleet) == {
        **{"a": "training", "b": "skipped", "c": "waiting", "d": "gone", "e": "idle", "f": "new"},
        "old": "removed",
    }
    assert seen(fleet).connected == 4
    assert seen(fleet).run_state == "running"


def test_a_cloud_that_has_stopped_and_a_run_that_was_killed(fleet: Path) -> None:
    write_presence(fleet, {"a": 61, "b": 62}, written=60)
    write_run(fleet, {"a": {"state": "training"}}, written=time.time() - 60)
    snapshot = seen(fleet)
    assert not snapshot.cloud_is_running
    assert snapshot.run_state == "lost"
    assert states(fleet)["a"] == "unknown"
    assert snapshot.devices[0].heard == pytest.approx(time.time() - 61, abs=5)


def test_a_run_that_has_ended(fleet: Path) -> None:
    write_presence(fleet, {"a": 1})
    write_models(fleet, ["a"])
    skip = Skip(site="a", call=1, kind="train", at=1, why="slow")
    write_run(fleet, {"a": {"state": "done"}}, ended=time.time(), skipped=[skip])
    snapshot = seen(fleet)
    assert (snapshot.run_state, snapshot.devices[0].state) == ("ended", "idle")
    assert snapshot.devices[0].record.current is not None
    write_run(fleet, {}, ended=time.time(), error="too few devices")
    assert seen(fleet).run_state == "failed"


def test_a_folder_without_a_fleet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="holds no fleet"):
        Reader(tmp_path, tmp_path).snapshot(0)


def test_fleet_toml_may_be_absent_while_it_is_replaced(fleet: Path) -> None:
    reader = Reader(fleet, fleet / "service")
    reader.snapshot(0)
    text = (fleet / "fleet.toml").read_text()
    (fleet / "fleet.toml").unlink()
    assert len(reader.snapshot(0).devices) == 7
    (fleet / "fleet.toml").write_text(text.replace('"a",', ""))
    assert len(reader.snapshot(0).devices) == 6
