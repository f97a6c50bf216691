"""Message headers: valid ones are decoded without loss, all others are refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.core.cut import Cut
from sheaf.core.errors import FleetError
from sheaf.core.recipe import FromStatistics, Noise, Recipe, Ridge, Share, Statistic, StatisticKind
from sheaf.core.task import Cost, Task, TaskKind, Update
from sheaf.fleets.remote.task_messages import OMITTED, RANGES, decode_task, decode_update
from sheaf.runtime.measured_logits import MeasuredLogits

recipes = st.builds(
    Recipe,
    epochs=st.integers(0, 10**6),
    lr=st.floats(1e-9, 1e3),
    augment=st.sampled_from([(), ("flip",), ("flip", "crop")]),
    schedule=st.sampled_from(["constant", "cosine", "onecycle"]),
)
cuts = st.builds(
    Cut,
    kept=st.sampled_from([(), (("conv", ((0, 3), (5, 9))),)]),
    classes=st.none() | st.just((1, 4)),
    other=st.booleans(),
)
tasks = st.builds(
    Task,
    kind=st.sampled_from(get_args(TaskKind)),
    call=st.integers(1, 10**6 - 1),
    seed=st.integers(0, 2**63 - 1),
    blob=st.none(),
    recipe=st.none() | recipes,
    cut=st.none() | cuts,
    reply=st.booleans(),
    share=st.none() | st.builds(Share, fraction=st.floats(0.01, 1), count=st.none() | st.integers(1, 99)),
    refit=st.none()
    | st.builds(Ridge, rescale=st.booleans())
    | st.builds(FromStatistics, statistics=st.sampled_from(["lda", "ridge"])),
    statistic=st.none()
    | st.builds(
        Statistic,
        kind=st.sampled_from(get_args(StatisticKind)),
        examples=st.none() | st.integers(1, 99),
        noise=st.none()
        | st.builds(Noise, clip=st.floats(0.1, 9), multiplier=st.floats(0.1, 9), delta=st.floats(1e-9, 1e-3)),
    ),
    since=st.integers(0, 99),
    mixtures=st.lists(st.floats(0, 1), max_size=4).map(tuple),
    baseline=st.integers(0, 99),
    outliers=st.floats(0, 100),
    blocks=st.lists(cuts, max_size=2).map(tuple),
)
TASK = Task("train", 3, 17, None, Recipe(), Cut((("conv", ((0, 3),)),), (1, 4)))
RECORD = MeasuredLogits.of("0" * 64, "random", torch.device("cpu"), torch.ones(2, 2)).header()
UPDATE = Update("edge-1", "train", None, (3, 0, 5), {"losses": [0.1, float("inf")]}, Cost(7, 0.25, 9, 11, 13))


@given(tasks)
def test_a_task_is_decoded_without_loss(task: Task) -> None:
    assert decode_task(task.header(), None) == task


def test_an_update_is_decoded_without_loss() -> None:
    assert decode_update(UPDATE.header(), None, "edge-1", "train", 3) == UPDATE
    measured = replace(UPDATE, kind="evaluate", metrics={"confusion": [[1, 0], [0, 2]], "loss": 0.5})
    measured.metrics["measured"] = RECORD
    measured = replace(measured, counts=(1, 2))
    chosen = {"mixture": 0.5, "mixtures": [0.0, 0.5], "accuracies": [0.5, 1.0], "held_out": 5}
    chosen = replace(UPDATE, kind="choose", metrics=chosen)
    assert decode_update(chosen.header(), None, "edge-1", "choose", 3) == chosen
    assert decode_update(measured.header(), None, "edge-1", "evaluate", 2) == measured


@pytest.mark.parametrize("name", [field.name for field in fields(Task) if field.name != "blob"])
def test_every_field_of_a_task_is_checked(name: str) -> None:
    header = TASK.header()
    for wrong in ({"not": "this"}, "x", [[]], 1e400):
        with pytest.raises(FleetError):
            decode_task(header | {name: wrong}, None)
    if name not in OMITTED:
        del header[name]
        with pytest.raises(FleetError, match=name):
            decode_task(header, None)


@pytest.mark.parametrize(
    "change",
    [
        {"call": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"share": {"fraction": 1.5}},
        {"share": {"path": "/"}},
        {"mixtures": [-1.0]},
        {"since": -1},
        {"outliers": 1e9},
        {"kind": "exec"},
        {"path": "/etc/passwd"},
        {"recipe": {"epochs": 1, "shell": "x"}},
        {"recipe": {"epochs": True}},
        {"recipe": {"lr": "0.1"}},
        {"share": {"count": 1.0}},
        {"recipe": {"loss": "no_such_loss"}},
        {"recipe": {"loss": {"name": "cross_entropy", "shell": "x"}}},
        {"cut": {"kept": 3}},
    ],
)
def test_a_task_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FleetError):
        decode_task(TASK.header() | change, None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_other_json_is_refused(header: Any) -> None:
    with pytest.raises(FleetError):
        decode_task(header, None)
    with pytest.raises(FleetError):
        decode_update(header, None, "edge-1", "train", 3)


def test_every_number_of_a_task_has_a_range() -> None:
    """The type of a new field of ``Task`` is checked automatically; a number also needs its range."""
    numbers = {name for name, hint in get_type_hints(Task).items() if hint in (int, float)}
    assert numbers <= set(RANGES)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "confusion matrix is not 3 x 3"),
        ({"confusion": [[1, 2], [3, 4]], "loss": 0.1}, "confusion matrix is not 3 x 3"),
        ({"confusion": [[1, 2, 3]] * 3}, "has no loss"),
        ({"confusion": [[-1, 2, 3]] * 3, "loss": 0.1}, "metrics.confusion"),
        ({"confusion": [[1, 2, 3]] * 3, "loss": 0.1, "held_out": 1.5}, "metrics.held_out"),
        ({"confusion": [[1, 2, 3]] * 3, "loss": 0.1, "more": 1}, "metrics.more"),
        (
            {"confusion": [[1, 2, 3]] * 3, "loss": 0.1, "measured": RECORD | {"inputs": "test"}},
            "metrics.measured.inputs",
        ),
    ],
)
def test_malformed_metrics_are_refused(metrics: dict[str, Any], message: str) -> None:
    update = replace(UPDATE, kind="evaluate", metrics=metrics)
    with pytest.raises(FleetError, match=message):
        decode_update(update.header(), None, "edge-1", "evaluate", 3)
