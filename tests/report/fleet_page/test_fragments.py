"""The page of a fleet as fragments: escaped, changed one by one, and fast for many devices."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from made_up import timeline_of
from made_up_fleet import HOSTILE, MEASURED, write_fleet, write_models, write_presence, write_run

from sheaf.experiments import service_history
from sheaf.experiments.service_history import HistoryLine
from sheaf.fleets.remote.status import CallLoss, FinishedRun, Measurement, RunHistory, Skip, write_status
from sheaf.report.fleet_page import fragments
from sheaf.report.fleet_page.fragments import FleetPage, changes


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    fleet = write_fleet(tmp_path / "fleet", ["shop-1", "shop-2"])
    write_presence(fleet, {"shop-1": 1, "shop-2": 1})
    return fleet


def test_only_what_has_changed_is_sent(fleet: Path) -> None:
    page = FleetPage(fleet)
    first = page.fragments()
    assert changes({}, first) is None
    assert changes(first, page.fragments()) == {}
    write_run(fleet, {"shop-2": {"state": "training", "done": 3, "steps": 10, "loss": 0.25}})
    changed = changes(first, page.fragments())
    assert changed is not None
    assert set(changed) == {"summary", "run-now", "states", "device-1"}
    assert "step 3 of 10, loss 0.25" in changed["device-1"]
    assert "Training shop-2: 0 of 1 done." in changed["run-now"]
    write_run(fleet, {"shop-1": {"state": "absent", "why": "slow"}, "shop-2": {"state": "done"}})
    assert "Training 2 sites: 1 of 2 done, 1 skipped." in page.fragments()["run-now"]
    first = page.fragments()
    write_fleet(fleet, ["shop-1", "shop-2"], groups={"shop-1": "berlin"}, labels={"shop-1": ["camera"]})
    changed = changes(first, page.fragments())
    assert changed is not None
    assert "berlin, camera" in changed["device-0"]
    write_fleet(fleet, ["shop-1", "shop-2", "shop-3"])
    assert changes(first, page.fragments()) is None, "another device: all is sent"


def test_texts_from_devices_are_escaped(fleet: Path) -> None:
    skip = Skip(site=HOSTILE, call=2, kind="train", at=time.time(), why=HOSTILE)
    write_run(
        fleet,
        {"shop-1": {"state": "refused", "why": HOSTILE}},
        **{"title": HOSTILE, "notes": [HOSTILE], "skipped": [skip], "error": HOSTILE, "ended": time.time()},
        measured=[Measurement(stage=HOSTILE, round=1, reference=False, cloud=0.5)],
    )
    html = FleetPage(fleet)
    page = html.html(html.fragments())
    assert HOSTILE not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 8


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": ""}, "The run is starting."),
        ({"ended": 1.0}, "The latest run has ended."),
        ({"ended": 1.0, "error": "too few devices"}, "The latest run has failed: too few devices"),
        ({"written": 1.0}, "The process of the latest run has ended without a report."),
    ],
)
def test_the_state_of_the_run(fields: dict[str, object], sentence: str, fleet: Path) -> None:
    run = write_run(fleet, {"shop-1": {"state": "waiting"}}, **fields)
    fragment = FleetPage(fleet).fragments()["run-now"]
    assert sentence in fragment
    failed = "without" in sentence or "failed" in sentence
    assert (f"sheaf cloud run --resume {run.run}" in fragment) == failed


def test_the_curves_are_drawn_when_they_have_changed(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "DRAWING_PERIOD", 3600.0)
    page = FleetPage(fleet)
    assert "No measurement yet." in page.fragments()["curves"]
    write_run(fleet, {}, measured=MEASURED, losses=[CallLoss(call=1, at_cloud=True, losses=(0.5, 0.5, 0.5))])
    first = page.fragments()["curves"]
    assert first.count("<svg ") == 2
    assert "round 1, before update: devices 0.8500 mean, 0.8000 to 0.9000" in first
    assert "call 1: loss 0.5 median" in first
    write_run(fleet, {}, measured=MEASURED)
    assert page.fragments()["curves"] == first, "not drawn again within seconds"
    write_run(fleet, {}, measured=MEASURED, ended=time.time())
    assert page.fragments()["curves"].count("<svg ") == 1


def test_the_timeline_of_the_devices(fleet: Path) -> None:
    page = FleetPage(fleet)
    assert "No answer yet." in page.fragments()["timeline"]
    timeline = timeline_of({"shop-1": 9.0, HOSTILE: 4.0}, calls=3, measured=True)
    write_run(fleet, {}, time=timeline.latest())
    fragment = page.fragments()["timeline"]
    assert fragment.count("<svg ") == 1
    assert "Timeline of the devices over 30.0 s. shop-1: computing 27.0 s, receiving 3.0 s," in fragment
    assert HOSTILE not in fragment
    write_run(fleet, {}, time=timeline_of({"shop-1": 9.0}, measured=True).latest())
    assert page.fragments()["timeline"] == fragment, "not drawn again within seconds"


def test_the_history_shows_the_latest_runs_first(fleet: Path) -> None:
    runs = [
        FinishedRun(run=f"/{number}", title="", began=1, ended=2, cloud=0.5, edges=(0.1, 0.25, 0.3))
        for number in range(60)
    ]
    runs.append(FinishedRun(run="/srv/runs/last", title="", began=1, ended=2, error="too few devices"))
    write_status(fleet, RunHistory, RunHistory(runs=runs).model_dump_json().encode())
    history = FleetPage(fleet).fragments()["history"]
    assert history.index("too few devices") < history.index(">59<") < history.index(">58<")
    assert "The latest 50 of 61 runs." in history
    assert "50.0\u00a0%" in history
    assert "25.0\u00a0%" in history


def test_the_rounds_of_a_fleet_in_service(fleet: Path) -> None:
    page = FleetPage(fleet)
    assert "round" not in page.fragments()["rounds"].replace('id="rounds"', "")
    (fleet / "service").mkdir()
    line = HistoryLine(round=1, began=1, ended=2, outcome="accepted", accuracy=0.5, devices=["shop-1"])
    service_history.append(fleet / "service", line)
    worse = HistoryLine(round=2, began=3, ended=4, outcome="rejected", why=HOSTILE, accuracy=0.25, before=0.5)
    service_history.append(fleet / "service", worse)
    rounds = page.fragments()["rounds"]
    assert rounds.index("rejected") < rounds.index("accepted")
    assert "25.0\u00a0%" in rounds
    assert HOSTILE not in rounds


def test_a_thousand_devices_are_fast(tmp_path: Path) -> None:
    devices = [f"shop-{number}" for number in range(1000)]
    fleet = write_fleet(tmp_path / "fleet", devices)
    write_presence(fleet, dict.fromkeys(devices, 1))
    write_models(fleet, devices)
    training = {"state": "training", "steps": 100, "loss": 0.5}
    write_run(fleet, dict.fromkeys(devices, training | {"done": 1}))
    page = FleetPage(fleet)
    first = page.fragments()
    write_run(fleet, dict.fromkeys(devices[:10], training | {"done": 2}))
    began = time.process_time()
    second = page.fragments()
    assert time.process_time() - began < 0.5
    assert len(first) == len(second) == 1008
    assert len(page.html(second)) < 2_000_000
