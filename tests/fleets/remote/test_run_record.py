"""The record of a run: the state of each site, skipped calls with reasons, and the measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import timeline_of

from sheaf.core.errors import FleetError
from sheaf.fleets.remote import run_record
from sheaf.fleets.remote.run_record import RunRecord
from sheaf.fleets.remote.status import (
    DeviceRecord,
    DeviceRecords,
    RunHistory,
    RunStatus,
    SiteStatus,
    read_status,
    status_file,
)
from sheaf.runtime.result import Replacement, Result, Row, WholeModel

ROW = Row(
    site="cloud", stage="after update", round=1, reference=False, accuracy=0.5, precision=0.5, recall=0.5,
    f1=0.5, macro_f1=0.5, accuracy_all=0.5, held_out=None, loss=1.0, examples=2, confusion=[[1, 0], [1, 0]],
)  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(tmp_path, tmp_path / "runs" / "one", "ecavg on digits with mlp")


def read(fleet: Path) -> RunStatus:
    status = read_status(fleet, RunStatus)
    assert status is not None
    return status


def written(fleet: Path, expected: Callable[[RunStatus], bool]) -> RunStatus:
    """Wait for a record that is as expected, and return it."""
    deadline = time.monotonic() + 30
    while not expected(status := read(fleet)):
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    return status


def test_a_call_with_a_slow_and_an_absent_device(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "INTERVAL", 0.01)
    with record.kept():
        assert read(tmp_path).ended is None
        record.absent("shop-3", "absent at the start: not connected")
        record.began("train", ["shop-1", "shop-2"])
        record.step("shop-1", 3, 10, 0.5, 24)
        record.step("shop-2", 1, 10, float("nan"), 8)
        record.absent("shop-2", "no reply for 15 s")
        record.answered("shop-1")
        status = written(tmp_path, lambda status: status.sites.get("shop-1", SiteStatus()).state == "done")
        assert {site: (entry.state, entry.done, entry.steps) for site, entry in status.sites.items()} == {
            "shop-3": ("absent", 0, 0),
            "shop-1": ("done", 10, 10),
            "shop-2": ("absent", 1, 10),
        }
        record.began("evaluate", ["shop-1", "shop-2"])
    status = read(tmp_path)
    assert [(skip.site, skip.call, skip.kind) for skip in status.skipped] == [
        ("shop-3", 0, ""),
        ("shop-2", 1, "train"),
    ]
    assert status.skipped[1].why == "no reply for 15 s"
    assert [(loss.call, loss.losses) for loss in status.losses] == [(1, (0.5, 0.5, 0.5))]
    assert status.ended is not None
    assert status.error == ""


def test_the_time_of_the_sites(record: RunRecord, tmp_path: Path) -> None:
    timeline = timeline_of({"shop-1": 9.0, "cloud": 4.0}, measured=True)
    with record.kept():
        record.timed(timeline)
    time = read(tmp_path).time
    assert time == timeline.latest()
    assert [(task.site, task.work) for task in time.tasks] == [("shop-1", 9.0), ("cloud", 4.0)]


def test_measurements_and_the_devices_models(record: RunRecord, tmp_path: Path) -> None:
    with record.kept():
        record.row(ROW)
        for site, accuracy in (("shop-1", 0.25), ("shop-2", 0.75)):
            record.row(replace(ROW, site=site, accuracy=accuracy, held_out=0.9))
        record.row(replace(ROW, site="shop-2", accuracy=0.1, reference=True))
    first, reference = read(tmp_path).measured
    assert (first.cloud, first.edges, first.count) == (0.5, (0.25, 0.5, 0.75), 2)
    assert (reference.reference, reference.count) == (True, 1)
    assert accuracies(tmp_path) == {"shop-1": ("one", 0.25), "shop-2": ("one", 0.75)}
    later = RunRecord(tmp_path, tmp_path / "runs" / "two", "the next run")
    with later.kept():
        later.row(replace(ROW, site="shop-1", accuracy=0.3))
    assert accuracies(tmp_path) == {"shop-1": ("two", 0.3), "shop-2": ("one", 0.75)}


def records(fleet: Path) -> dict[str, DeviceRecord]:
    status = read_status(fleet, DeviceRecords)
    assert status is not None
    return status.devices


def accuracies(fleet: Path) -> dict[str, tuple[str, float]]:
    measured = {site: record.measured for site, record in records(fleet).items()}
    return {site: (model.run, model.accuracy) for site, model in measured.items() if model is not None}


def test_the_devices_current_models(record: RunRecord, tmp_path: Path) -> None:
    taken = {site: Replacement(replaced=True, held_out=0.9, samples=10) for site in ("shop-1", "shop-2")}
    with record.kept():
        record.finished(finished(taken))
    later = RunRecord(tmp_path, tmp_path / "runs" / "two", "the next run")
    with later.kept():
        worse = Replacement(replaced=False, held_out=0.5, before=0.8, samples=10, why="0.5 is below 0.8")
        later.finished(finished({"shop-1": worse, "shop-3": Replacement(replaced=False, why="disk is full")}))
    history = read_status(tmp_path, RunHistory)
    assert history is not None
    assert [(Path(run.run).name, run.kept_out) for run in history.runs] == [("one", 0), ("two", 2)]
    found = records(tmp_path)
    for site, held_out in (("shop-1", 0.8), ("shop-2", 0.9)):
        current = found[site].current
        assert current is not None
        assert (current.run, current.held_out) == ("one", held_out)
    assert found["shop-3"].current is None
    assert [found[site].kept_out for site in ("shop-1", "shop-2", "shop-3")] == [
        *("0.5 is below 0.8", "", "disk is full")
    ]


def finished(replacements: dict[str, Replacement]) -> Result:
    whole = WholeModel(macs_per_example=1, train_macs_per_example=3, parameters=1)
    return Result(
        method="ecavg", classes=[], split={}, rows=[], whole=whole, cost={}, refused=[], weights={},
        provenance={}, replacements=replacements,
    )  # fmt: skip


def test_the_error_of_a_failed_run_is_recorded(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(FleetError), record.kept():
        raise FleetError("too few devices")
    assert read(tmp_path).error == "too few devices"
    again = RunRecord(tmp_path, tmp_path / "runs" / "one", "resumed")
    with again.kept():
        again.answered("shop-1")
        again.row(ROW)
    history = read_status(tmp_path, RunHistory)
    assert history is not None
    (run,) = history.runs
    assert (run.title, run.error, run.devices, run.cloud, run.edges) == ("resumed", "", 1, 0.5, None)


def test_the_record_is_written_while_nothing_happens(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "LONGEST", 0.01)
    monkeypatch.setattr(run_record, "INTERVAL", 0.01)
    with record.kept():
        began = read(tmp_path).written
        while read(tmp_path).written == began:
            pass


def test_the_record_stays_small(record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "MOST", 10)
    with record.kept():
        for number in range(1, 30):
            record.began("train", ["shop-1"])
            record.step("shop-1", 1, 1, 0.5, 1)
            record.refused("shop-1", "not finite")
            record.row(replace(ROW, round=number))
            record.note("a note")
    status = read(tmp_path)
    for kept in (status.measured, status.losses, status.skipped, status.notes):
        assert len(kept) == 10
    assert status.measured[-1].round == 29


def test_a_full_disk_does_not_end_the_run(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("")  # not a folder
    with record.kept():
        record.note("a note")


@pytest.mark.parametrize("content", ["", "{", '{"run": 1}', "\0" * 100])
def test_a_damaged_file_counts_as_absent(content: str, tmp_path: Path) -> None:
    path = status_file(tmp_path, RunStatus)
    assert read_status(tmp_path, RunStatus) is None
    path.parent.mkdir()
    path.write_text(content)
    assert read_status(tmp_path, RunStatus) is None
