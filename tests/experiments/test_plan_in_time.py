"""A plan within limits of seconds, bytes and joules: as the clock's run, and no lower than it needs to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import one_line

from sheaf.core import registry
from sheaf.core.errors import SettingError
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.dry_run import dry_run
from sheaf.experiments.memory_check import check_memory
from sheaf.experiments.plan_costs import PlanCosts
from sheaf.experiments.plan_in_time import TimePlan, plan_in_time
from sheaf.experiments.plan_limits import Limits
from sheaf.experiments.plan_options import OWN, Option, with_options
from sheaf.experiments.setup import prepare

DATA = ("data.limit=400", "data.limit_test=60", "fleet.devices.jitter=0")
METHODS = {
    "ecavg": ("method.pretrain.epochs=4", "method.finetune.epochs=2", "method.retrain.epochs=4"),
    "decoupled": ("method=decoupled", "method.train.epochs=4"),
    "fedavg": ("method={name='fedavg'}", "method.rounds=2"),
    "heterofl": ("method={name='heterofl'}", "method.rounds=2"),
}
DEVICE = """title = "own"
[device]
macs_per_second = {{ float32 = {speed} }}
memory = {memory}
watts_idle = 1.0
watts_busy = 4.0
[link]
up = {rate}
down = {rate}
"""


def experiment(method: str, folder: Path, *changes: str, **device: float) -> Experiment:
    """Return an experiment whose edge-1 has a device with these figures, and edge-2 a fast laptop."""
    figures = {"speed": 1e12, "memory": 1e9, "rate": 1e9} | device
    (folder / "own.toml").write_text(DEVICE.format(**figures))
    devices = f"fleet.devices.edges={{edge-1='{folder}/own.toml', edge-2='laptop+ethernet'}}"
    return load_experiment("ecavg-digits", [*DATA, *METHODS[method], devices, *changes])


def limit(given: Experiment, factor: float = 0.5) -> Limits:
    """Return a limit of this fraction of the seconds that the experiment takes."""
    _, timeline = dry_run(prepare(given))
    assert timeline is not None
    return Limits(seconds=factor * timeline.spent().seconds)


SLOW, THIN = {"speed": 3e7}, {"rate": 4e3}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Limits, TimePlan]:
    """ECAvg with a thin link, in half of its seconds."""
    given = experiment("ecavg", tmp_path_factory.mktemp("planned"), "fleet.devices.jitter=0.1", **THIN)
    limits = limit(given)
    return given, limits, plan_in_time(given, limits)


def test_the_planned_run_ends_within_the_limit_as_predicted(
    planned: tuple[Experiment, Limits, TimePlan], tmp_path: Path
) -> None:
    _, limits, plan = planned
    result = runs.run(plan.experiment, out=tmp_path / "run")
    assert result.time is not None
    assert limits.seconds is not None
    assert result.time.spent.seconds <= limits.seconds < plan.own.spent.seconds
    assert result.time.spent.seconds == pytest.approx(plan.time.spent.seconds, rel=2e-3)
    assert result.time.spent.joules == pytest.approx(plan.time.spent.joules, rel=2e-3)
    for site in result.split:
        assert result.cost[site].bytes_received == plan.costs[site].bytes_received
        assert result.cost[site].bytes_sent == pytest.approx(plan.costs[site].bytes_sent, abs=40)  # digits
    assert set(plan.changed) == {"edge-1"}  # nobody waits for the laptop


def test_limits_that_hold_change_nothing(planned: tuple[Experiment, Limits, TimePlan]) -> None:
    given, _, plan = planned
    loose = Limits(seconds=1.01 * plan.own.spent.seconds, bytes=10**9, joules=10**9)
    assert plan_in_time(given, loose).experiment is given


@pytest.mark.parametrize(
    ("method", "device", "changes", "lowered"),
    [
        ("ecavg", THIN, (), {"codec"}),
        ("ecavg", THIN, ("fleet.upload=int8", "fleet.download=int8"), {"share"}),
        ("ecavg", SLOW, (), {"work"}),
        ("decoupled", SLOW, (), {"work"}),
        ("heterofl", SLOW, (), {"width"}),
    ],
)
def test_the_setting_is_lowered_that_helps_and_costs_least_accuracy(
    method: str, device: dict[str, Any], changes: tuple[str, ...], lowered: set[str], tmp_path: Path
) -> None:
    given = experiment(method, tmp_path, "fleet.devices.evaluation=false", *changes, **device)
    limits = limit(given, 0.75 if "share" in lowered else 0.5)
    plan = plan_in_time(given, limits)
    assert limits.seconds is not None
    assert plan.time.spent.seconds <= limits.seconds
    assert set(plan.changed) == {"edge-1"}
    own = vars(OWN)
    assert {name for name, value in vars(plan.changed["edge-1"]).items() if value != own[name]} == lowered
    assert load_experiment(plan.experiment) == plan.experiment


def test_each_device_keeps_its_cap_of_bytes_and_joules(tmp_path: Path) -> None:
    given = experiment("ecavg", tmp_path, **THIN)
    most = {"bytes": 70_000, "joules": 110.0}
    plan = plan_in_time(given, Limits(**most))
    own = dry_run(prepare(given))[0].sites
    for site in ("edge-1", "edge-2"):
        assert plan.costs[site].bytes_sent + plan.costs[site].bytes_received <= most["bytes"]
        assert own[site].bytes_sent + own[site].bytes_received > most["bytes"]
        assert (plan.time.sites[site].joules or 0) <= most["joules"]
    assert set(plan.changed) == {"edge-1", "edge-2"}
    assert registry.name_of(plan.experiment.fleet.codecs["edge-2"]) in ("bfloat16", "int8")


def test_a_device_with_little_memory_gets_a_narrow_sub_model(tmp_path: Path) -> None:
    given = experiment("heterofl", tmp_path, memory=120_000.0)
    plan = plan_in_time(given, Limits(seconds=1e6))
    assert plan.changed["edge-1"].width < 1
    check_memory(prepare(plan.experiment))


def test_narrow_blocks_leave_the_others_theirs(tmp_path: Path) -> None:
    setup = prepare(experiment("decoupled", tmp_path))
    changed = with_options(setup, {"edge-1": Option(width=0.5)})
    assert changed.fleet.widths == {"edge-1": 0.25, "edge-2": 0.5}
    costs = [dry_run(prepare(each))[0].sites for each in (setup.experiment, changed)]
    assert costs[0]["edge-2"].macs_per_example == costs[1]["edge-2"].macs_per_example
    half = costs[1]["edge-1"].macs_per_example / costs[0]["edge-1"].macs_per_example
    assert half == pytest.approx(0.5, abs=1 / 64)  # a unit more by rounding


def test_the_costs_of_many_rounds_follow_from_three(tmp_path: Path) -> None:
    setup = prepare(experiment("ecavg", tmp_path, "method.rounds=6", **SLOW))
    table, (ledger, timeline) = PlanCosts(setup), dry_run(setup)
    assert timeline is not None
    own = np.array([table.options.index(OWN)] * 2)
    assert table.end(own) == pytest.approx(timeline.spent().seconds, rel=1e-3)
    for number, site in enumerate(table.sites):
        cost = ledger.sites[site]
        assert table.bytes[own[0], number] == pytest.approx(cost.bytes_sent + cost.bytes_received, rel=2e-3)
        joules = table.idle[number] * timeline.spent().seconds + table.beyond[own[0], number]
        assert joules == pytest.approx(timeline.record([]).sites[site].joules, rel=2e-3)


@pytest.mark.parametrize(
    ("method", "device", "limits", "message"),
    [
        ("ecavg", THIN, Limits(seconds=1), "--finish-within: the run takes at least"),
        ("ecavg", {}, Limits(bytes=10_000), "--data-cap: edge-1 ("),
        ("ecavg", SLOW, Limits(joules=0.01), "--joules: edge-"),
        ("fedavg", {"memory": 1000.0}, Limits(seconds=1e6), "fits into the device's memory"),
    ],
)
def test_limits_that_nothing_meets_are_one_line_with_the_nearest_value(
    method: str, device: dict[str, Any], limits: Limits, message: str, tmp_path: Path
) -> None:
    given = experiment(method, tmp_path, **device)
    with pytest.raises(SettingError) as error:
        plan_in_time(given, limits)
    assert message in one_line(error)
    assert "use a smaller model" in one_line(error) or "; raise it to " in one_line(error)
    if limits.seconds == 1 and method == "ecavg":
        nearest = float(one_line(error).partition("raise it to ")[2].partition("s")[0])
        assert plan_in_time(given, Limits(seconds=nearest)).time.spent.seconds <= nearest


@pytest.mark.parametrize("quorum", [0.5, 1.0])
def test_a_deadline_is_kept_though_no_limit_needs_it(quorum: float, tmp_path: Path) -> None:
    """With a quorum of 1, the experiment's own settings stop the run."""
    given = experiment("ecavg", tmp_path, "fleet.deadline=12", f"fleet.quorum={quorum}", **THIN)
    plan = plan_in_time(given, Limits(seconds=1e6))
    assert max(call.end - call.start for call in plan.own.calls) >= 12
    assert not any(call.absent for call in plan.time.calls)


def test_unknown_power_and_missing_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs devices with a virtual clock"):
        plan_in_time(load_experiment("ecavg-digits", DATA[:2]), Limits(seconds=1))
    profile = DEVICE.format(speed=1e9, memory=1e9, rate=1e6).replace("watts_busy = 4.0", "")
    (tmp_path / "dark.toml").write_text(profile)
    given = load_experiment("ecavg-digits", [*DATA, f"fleet.devices.mix={{'{tmp_path}/dark.toml' = 1}}"])
    with pytest.raises(SettingError, match="--joules: the power of edge-1's device"):
        plan_in_time(given, Limits(joules=1))


def test_a_sample_of_edges_in_each_round_can_be_planned(tmp_path: Path) -> None:
    """An edge that is drawn rarely has no more time for its training than the others."""
    changes = ("partition=iid", "partition.edges=6", "method.rounds=3", "method.sample=0.34")
    free, small = "fleet.devices.evaluation=false", "method.local.batch_size=8"
    devices = f"fleet.devices.mix={{'{tmp_path}/own.toml'=1}}"
    given = experiment("fedavg", tmp_path, *changes, "fleet.devices.edges={}", devices, free, small, **SLOW)
    limits = limit(given, 0.7)
    plan = plan_in_time(given, limits)
    assert limits.seconds is not None
    assert 0.5 * limits.seconds < plan.time.spent.seconds <= limits.seconds
