"""A device's own edge.toml: the requests that it refuses."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from device_rig import SHARES_ALL, SITES, Rig, absent, train

from sheaf.core.errors import FleetError
from sheaf.core.recipe import Share, Statistic
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.device_limits import check_plugins
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings, ShareSettings
from sheaf.fleets.remote.messages import PlannedTask


@pytest.mark.parametrize(
    ("own", "task", "message"),
    [
        (
            EdgeFile(),
            Task("share", 1, 5, share=Share(fraction=0.1)),
            "exceeds [share] max_fraction = 0 (0 %)",
        ),
        (
            EdgeFile(share=ShareSettings(max_fraction=0.2)),
            Task("share", 1, 5, share=Share(fraction=0.5)),
            "sharing 50 % of its samples (14) exceeds [share] max_fraction = 0.2 (20 %): 6 of its 30 samples",
        ),
        (
            EdgeFile(share=ShareSettings(max_fraction=1.0, max_mb=0.0001)),
            Task("share", 1, 5, share=Share(fraction=1.0)),
            "exceeds [share] max_fraction = 1 (100 %) and max_mb = 0.0001",
        ),
        (
            EdgeFile(share=ShareSettings(max_fraction=1.0)),
            train(statistic=Statistic("gram")),
            "the gram statistic of its samples exceeds [share] statistics = false",
        ),
        (
            EdgeFile(share=ShareSettings(max_fraction=1.0)),
            train(kind="summarize", recipe=None, statistic=Statistic("features")),
            "the features statistic of its samples exceeds [share] statistics = false",
        ),
        (EdgeFile(edge=EdgeSettings(max_epochs=1)), train(), "2 epochs exceed [edge] max_epochs = 1"),
        (EdgeFile(edge=EdgeSettings(macs=10)), train(), "multiply-adds exceed [edge] macs = 10"),
        (EdgeFile(edge=EdgeSettings(parameters=10)), train(), "parameters exceed [edge] parameters = 10"),
        (EdgeFile(edge=EdgeSettings(max_mb=0.0005)), train(), "exceeds [edge] max_mb = 0.0005"),
        (SHARES_ALL, train(blob=None), "refused: "),
        (SHARES_ALL, train(blob=Blob.of({"w": torch.ones(3)})), "Error(s) in loading state_dict"),
    ],
)
def test_a_task_that_exceeds_a_limit_is_refused(
    tmp_path: Path, own: EdgeFile, task: Task, message: str
) -> None:
    assert message in absent(Rig(tmp_path, {"left": own}).run(task)["left"])


def test_shared_samples_are_counted_over_all_runs(tmp_path: Path) -> None:
    own = {"left": EdgeFile(share=ShareSettings(max_fraction=0.5))}
    half = Task("share", 1, 5, share=Share(fraction=0.5))
    for seed in (5, 6, 7):
        assert isinstance(Rig(tmp_path, own).run(replace(half, seed=seed))["left"], Update)
    left = set((tmp_path / "left" / "state" / "shared.txt").read_text().split())
    assert 14 <= len(left) <= 15, "half of its 30 samples"
    rig = Rig(tmp_path, own)
    more = replace(half, share=Share(fraction=0.9))
    assert "15 of its 30 samples may leave it over all runs, 15 have left" in absent(rig.run(more)["left"])
    planned = PlannedTask(task=more.header(), size=0)
    refusals = rig.fleet.check({"left": [planned]})["left"]
    assert isinstance(refusals, list)
    assert "sharing 90 % of its samples" in refusals[0]


def test_a_model_that_is_not_shipped_needs_the_devices_permission(tmp_path: Path) -> None:
    for name in ("toys:DigitsCNN", "os:system", "sheaf.core.tensor_file:Blob", "torchvision:resnet18"):
        device = Rig(tmp_path, setup={"model": name, "options": {}}).fleet.devices()["left"]
        assert f"model '{name}' is not in [edge] allow" in absent(device)


@pytest.mark.parametrize(
    "loss",
    [
        "os:system",
        {"name": "os:system"},
        {"name": "os:system", "alpha": 1.0},
        {"name": "cross_entropy", "of": [{"name": "os:system"}]},
    ],
)
def test_a_loss_that_is_not_shipped_is_refused_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: Any
) -> None:
    rig = Rig(tmp_path)
    rig.fleet.devices()
    header = train(blob=None).header()
    header["recipe"]["loss"] = loss
    begin = {"ticket": "one", "task": header, "wait": 5.0}
    monkeypatch.setattr(importlib, "import_module", lambda name, *_: pytest.fail(f"{name} was imported"))
    reply, _ = rig.link.sites["left"].handle("begin", json.dumps(begin).encode(), b"")
    state = json.loads(reply)
    assert state["state"] == "refused"
    assert state["reason"].startswith("loss 'os:system' is not in [edge] allow")


def test_a_loss_that_is_shipped_or_allowed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, modules = EdgeSettings(allow=("mine.losses:Focal",)), set(sys.modules)
    for header in (
        None,
        {},
        {"recipe": None},
        {"recipe": {"epochs": 1}},
        {"recipe": {"loss": None}},
        {"recipe": {"loss": {"name": "cross_entropy"}}},
        {"recipe": {"loss": {"name": "mine.losses:Focal"}}},
    ):
        check_plugins(header, allowed)
    with pytest.raises(FleetError, match=r"mine\.losses:Other"):
        check_plugins({"recipe": {"loss": {"name": "mine.losses:Other"}}}, allowed)
    assert set(sys.modules) == modules


def test_planned_tasks_are_compared_with_the_limits_before_any_is_computed(tmp_path: Path) -> None:
    own = EdgeFile(edge=EdgeSettings(max_epochs=1, max_mb=1.0))
    rig = Rig(tmp_path, {"left": own})
    rig.fleet.devices()
    tasks = [(train(blob=None), 2_000_000), (train(blob=None), 0), (Task("share", 2, 5), 0)]
    planned = [PlannedTask(task=task.header(), size=size) for task, size in tasks]
    refusals = rig.fleet.check(dict.fromkeys(SITES, planned))
    assert refusals["right"] == []
    size, epochs, share = refusals["left"]
    assert size.startswith("message of 2 MB exceeds [edge] max_mb = 1; ask for less in the experiment")
    assert epochs.startswith("2 epochs exceed [edge] max_epochs = 1; ask for less in the experiment")
    assert "[share] max_fraction" in share
    assert rig.steps == []


def test_another_version_of_sheaf_is_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path, setup={"version": "0.0.1"})
    reason = absent(rig.fleet.devices()["left"])
    assert "the cloud has sheaf 0.0.1, this device " in reason
    assert reason.endswith("; install the same version on both")
