"""Comparisons at the same budget of seconds, bytes or joules."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sheaf.cli.main import app
from sheaf.core.errors import SheafError
from sheaf.experiments import run as runs
from sheaf.experiments.budget import accuracy_within, predict, with_budget
from sheaf.experiments.compare import compare
from sheaf.experiments.config import load_experiment
from sheaf.runtime.result import Result

CHANGES = (
    "data.limit=400",
    "data.limit_test=100",
    "partition=iid",
    "partition.edges=3",
    "method={name='fedavg', rounds=3, local={epochs=1, lr=0.05, batch_size=32, optimizer='sgd'}}",
)
DEVICES = "fleet.devices.mix={'raspberry-pi-4+lte' = 1}"


@pytest.mark.parametrize("per", ["seconds", "joules"])
def test_every_method_stops_at_the_same_budget_and_they_are_ranked(per: str, tmp_path: Path) -> None:
    experiment = load_experiment("ecavg-digits", [*CHANGES, DEVICES])
    methods = ("fedavg", "heterofl")
    summaries = compare(experiment, methods, 1, tmp_path, per=per)  # type: ignore[arg-type]
    budget = summaries[0].budget
    assert budget is not None
    accuracies = [summary.at_budget[0] for summary in summaries]
    assert accuracies == sorted(accuracies, reverse=True)
    for method in methods:
        result = Result.read(tmp_path / f"{method}-0")
        assert result.time is not None
        spent = [getattr(each, per) for each in result.time.measured]
        assert min(spent) <= budget
        assert getattr(result.time.spent, per) >= 0.9 * budget  # not ended by too few rounds
        (within,) = (s.at_budget[0] for s in summaries if s.method == method)
        assert accuracy_within(result, per, budget) == within  # type: ignore[arg-type]
        assert accuracy_within(result, per, 0.9 * min(spent)) is None  # type: ignore[arg-type]


def test_the_prediction_is_what_the_clock_says(tmp_path: Path) -> None:
    """The two differ by the digits of losses in messages, and by evaluations, whose logits are not known."""
    experiment = load_experiment("ecavg-digits", [*CHANGES, DEVICES, "fleet.devices.evaluation=false"])
    predicted = predict(experiment)
    time = runs.run(experiment, out=tmp_path / "run").time
    assert time is not None
    assert predicted == pytest.approx(
        {"seconds": time.spent.seconds, "bytes": time.spent.bytes, "joules": time.spent.joules}, rel=0.02
    )


def test_seconds_need_devices_and_bytes_do_not() -> None:
    experiment = load_experiment("ecavg-digits", CHANGES)
    with pytest.raises(SheafError, match="--per joules needs devices with a virtual clock"):
        with_budget(experiment, "joules", 5.0)
    limited = with_budget(experiment, "bytes", 1e7)
    assert limited.fleet.stop_at is not None
    assert limited.fleet.stop_at.bytes == 1e7
    assert limited.method.rounds > experiment.method.rounds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--per", "hours"], "--per hours: allowed: seconds, bytes, joules"),
        (["--budget", "5"], "--budget 5 needs a cost"),
        (["--per", "seconds"], "--per seconds needs devices"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["compare", "ecavg-digits", *options])
    assert isinstance(result.exception, SheafError)
    assert message in str(result.exception)
