"""A plan keeps every budget, uses it out, and is an experiment that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sheaf.experiments import plan
from sheaf.experiments import run as runs
from sheaf.experiments.config import DeviceBudget, load_experiment

DECOUPLED = ("method=decoupled", "method.train.epochs=2", "data.limit=400", "data.limit_test=100")


def planned(*changes: str) -> list[plan.Planned]:
    return plan.plan(load_experiment("ecavg-digits", (*DECOUPLED, *changes)))[1]


@pytest.mark.parametrize(("limit", "amount"), [("macs", 2000), ("parameters", 1500), ("memory", 60_000)])
def test_a_budget_is_kept_and_used_out(limit: str, amount: float) -> None:
    weak, strong = planned(f"fleet.budgets.edge-1.{limit}={amount}")
    takes = getattr(weak.needs, limit)
    assert 0.7 * amount < takes <= amount
    assert weak.limited_by == limit
    assert strong.width > weak.width
    assert strong.width + weak.width <= 1


def test_seconds_go_by_the_stated_speed() -> None:
    (weak, _) = planned("fleet.budgets.edge-1={seconds=0.8, speed=1e6}")
    assert weak.limited_by == "seconds"
    assert 0.6 < weak.needs.seconds <= 0.8


def test_seconds_without_a_speed_are_measured_here() -> None:
    (unlimited, _) = planned("fleet.budgets.edge-1.seconds=1000")
    assert 0 < unlimited.needs.seconds < 1000


@pytest.mark.parametrize("method", ["decoupled", "heterofl", "fedrolex"])
def test_a_plan_is_an_experiment_that_runs(method: str, tmp_path: Path) -> None:
    changes = (f"method={method}", "fleet.budgets={edge-1={macs=2500}, edge-2={macs=4000}}", *DECOUPLED[2:])
    experiment, rows = plan.plan(load_experiment("ecavg-digits", changes))
    (tmp_path / "planned.toml").write_text(experiment.toml())
    assert load_experiment(tmp_path / "planned.toml") == experiment
    result = runs.run(experiment, out=tmp_path / "run")
    for row in rows:
        assert result.cost[row.site].macs_per_example == row.needs.macs
        assert result.whole.macs_per_example / row.needs.macs == pytest.approx(row.saved)
        assert row.needs.macs <= (2500 if row.site == "edge-1" else 4000)


def test_shares_side_by_side_fill_the_width_once() -> None:
    assert plan._side_by_side({"a": 0.1, "b": 1.0, "c": 1.0}) == pytest.approx(
        {"a": 0.1, "b": 0.45, "c": 0.45}
    )
    assert plan._side_by_side({"a": 0.1, "b": 0.2}) == {"a": 0.1, "b": 0.2}


def test_nothing_said_is_no_limit() -> None:
    assert not plan._exceeded(plan.Needs(1e12, 1e12, 1e12, 1e12), DeviceBudget())
