"""The tasks of an experiment, known before anything is trained."""

from __future__ import annotations

import pytest

from sheaf.experiments.config import load_experiment
from sheaf.experiments.planned_tasks import demands_of
from sheaf.experiments.setup import prepare

COUNTS = {"a": [10] * 5 + [0] * 5, "b": [0] * 5 + [7] * 5, "absent": [0] * 10}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ((), ["train", "share", "evaluate", "adopt", "train"]),
        (
            ("method.rounds=1000", "method.share.fraction=0.1"),
            ["train", "share", "evaluate", "adopt", "train"],
        ),
        (
            ("method=decoupled", "method.share.fraction=0.5", "method.negatives=pooled"),
            ["share", "lend", "train", "evaluate"],
        ),
        (("method=local",), ["train", "evaluate"]),
    ],
)
def test_the_tasks_of_a_method(changes: tuple[str, ...], kinds: list[str]) -> None:
    setup = prepare(load_experiment("ecavg-digits", changes), None, COUNTS)
    demands = demands_of(setup, ["a", "b"])
    assert set(demands) == {"a", "b"}
    tasks = [planned.task for planned in demands["a"].tasks]
    assert set(kinds) <= {task["kind"] for task in tasks}
    assert len(tasks) <= 2 * len(kinds)
    parameters = sum(value.numel() for value in setup.theta.values())
    if "method=decoupled" not in changes:
        assert demands["a"].memory > 16 * parameters, "weights, gradients and two moments of Adam"
        assert demands["a"].disk > 4 * 4 * parameters


def test_a_codec_needs_disk_for_received_models_and_its_error() -> None:
    plain, coded = (
        demands_of(prepare(load_experiment("ecavg-digits", changes), None, COUNTS), ["a"])["a"]
        for changes in ((), ("fleet.upload=topk", "fleet.download=int8"))
    )
    assert coded.disk == 2 * plain.disk
    assert max(task.size for task in coded.tasks) < 0.3 * max(task.size for task in plain.tasks)
