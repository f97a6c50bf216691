"""A plan has the widest sub-models that fit the budgets, and is an experiment that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sheaf.experiments import plan
from sheaf.experiments import run as runs
from sheaf.experiments.config import DeviceBudget, load_experiment

DECOUPLED = ("method=decoupled", "method.train.epochs=2", "data.limit=400", "data.limit_test=100")


def planned(*changes: str) -> list[plan.Planned]:
    return plan.plan(load_experiment("ecavg-digits", (*DECOUPLED, *changes)))[1]


UNITS, BATCH, EXAMPLES = 128, 32, 180
"""Hidden units of the whole network (64 -> 128 -> 10), mini-batch, and training examples of edge-1."""


def needs(units: int) -> plan.Needs:
    """Return the needs of a sub-model with ``units`` hidden units and five classes, at a speed of 1e6."""
    parameters = (64 + 1) * units + (units + 1) * 5
    activations = 4 * BATCH * (64 + units)
    return plan.Needs(
        macs=(64 + 5) * units,
        parameters=parameters,
        memory=4 * parameters * (1 + 1 + 2) + activations,  # parameters, gradients and Adam's two moments
        seconds=EXAMPLES * (2 * 64 + 3 * 5) * units / 1e6,  # the first layer has no input gradient
    )


@pytest.mark.parametrize(
    ("limit", "amount", "units"),
    [("macs", 2000, 28), ("parameters", 1500, 20), ("memory", 60_000, 40), ("seconds", 0.8, 30)],
)
def test_the_widest_sub_model_within_a_budget_is_planned(limit: str, amount: float, units: int) -> None:
    weak, strong = planned(f"fleet.budgets.edge-1={{{limit}={amount}, speed=1e6}}")
    expected = needs(units)
    assert weak.needs == expected
    assert getattr(expected, limit) <= amount < getattr(needs(units + UNITS // plan.STEPS), limit)
    assert (weak.width, strong.width) == (units / UNITS, 1 - units / UNITS)
    assert (weak.limited_by, strong.limited_by) == (limit, None)
    assert weak.saved == (64 + 10) * UNITS / expected.macs


def test_speed_is_measured_if_not_given() -> None:
    (unlimited, _) = planned("fleet.budgets.edge-1.seconds=1000")
    assert 0 < unlimited.needs.seconds < 1000


@pytest.mark.parametrize(
    ("method", "unit", "weak", "strong"),
    [("decoupled", 64 + 5, 36, 57), ("heterofl", 64 + 10, 32, 54), ("fedrolex", 64 + 10, 32, 54)],
)
def test_a_plan_is_an_experiment_that_runs(
    method: str, unit: int, weak: int, strong: int, tmp_path: Path
) -> None:
    """``unit`` is the multiply-adds of a hidden unit; ``weak`` and ``strong`` are units within the budgets.

    In steps of two; of decoupled's blocks, rounding up gives one unit more.
    """
    changes = (f"method={method}", "fleet.budgets={edge-1={macs=2500}, edge-2={macs=4000}}", *DECOUPLED[2:])
    experiment, rows = plan.plan(load_experiment("ecavg-digits", changes))
    (tmp_path / "planned.toml").write_text(experiment.toml())
    assert load_experiment(tmp_path / "planned.toml") == experiment
    result = runs.run(experiment, out=tmp_path / "run")
    for row in rows:
        assert result.cost[row.site].macs_per_example == row.needs.macs
        assert result.whole.macs_per_example / row.needs.macs == pytest.approx(row.saved)
    assert {row.site: row.needs.macs for row in rows} == {"edge-1": unit * weak, "edge-2": unit * strong}


def test_widths_side_by_side_sum_to_one_at_most() -> None:
    assert plan._side_by_side({"a": 0.1, "b": 1.0, "c": 1.0}) == pytest.approx(
        {"a": 0.1, "b": 0.45, "c": 0.45}
    )
    assert plan._side_by_side({"a": 0.1, "b": 0.2}) == {"a": 0.1, "b": 0.2}


def test_no_budget_is_no_limit() -> None:
    assert not plan._exceeded(plan.Needs(1e12, 1e12, 1e12, 1e12), DeviceBudget())
