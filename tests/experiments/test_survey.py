"""The check of a fleet's devices before a run: one line for each that cannot take part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from device_rig import CLASSES, SHAPE, SHARES_ALL, Rig, samples
from support import one_line

from sheaf.core.dataset import Dataset
from sheaf.core.errors import DevicesError
from sheaf.experiments import run_on_fleet
from sheaf.experiments.config import load_experiment
from sheaf.experiments.edge_samples import samples_of_counts
from sheaf.experiments.setup import ExperimentSetup
from sheaf.experiments.survey import Survey, survey
from sheaf.fleets.remote import device
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings
from sheaf.models.build import build_model
from sheaf.training.network import Network

EXPERIMENT = load_experiment("ecavg-digits", ("model.options.hidden=8",))


def setup_with(counts: dict[str, list[int]], widths: dict[str, float]) -> ExperimentSetup:
    dataset = Dataset("tiny", samples(1, 0), samples(9, 6), CLASSES, (0.5,), (0.25,), "")
    network = Network(build_model(EXPERIMENT.model, len(CLASSES), SHAPE, 1), SHAPE)
    experiment = replace(EXPERIMENT, fleet=replace(EXPERIMENT.fleet, widths=widths))
    edges = samples_of_counts(counts, dataset)
    return ExperimentSetup(experiment, dataset, edges, network, torch.device("cpu"), ())


def surveyed(rig: Rig) -> Survey:
    return survey(rig.fleet, setup_with)


def test_devices_that_fit_take_part(tmp_path: Path) -> None:
    found = surveyed(Rig(tmp_path, {"right": replace(SHARES_ALL, edge=EdgeSettings(width=0.5))}))
    assert found.reasons == []
    assert found.fitting == ["left", "right"]
    assert found.reasons == []
    found.check_quorum(1.0)
    assert found.counts(3) == {site: info.counts for site, info in found.infos.items()}
    assert found.widths() == {"right": 0.5}
    assert {task.task["kind"] for task in found.demands["left"].tasks} >= {"train", "share", "adopt"}


def test_each_reason_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available_memory", lambda: 1000)
    found = surveyed(Rig(tmp_path, {"left": EdgeFile(edge=EdgeSettings(max_epochs=3))}))
    assert found.fitting == []
    epochs, share, memory, right = found.reasons
    assert epochs.startswith("left: 20 epochs exceed [edge] max_epochs = 3; ask for less in the experiment")
    assert share.startswith("left: ")
    assert "[share] max_fraction = 0" in share
    assert memory.startswith("left: training needs 0 MB of memory and 0 MB are available; lower ")
    assert right.startswith("right: training needs ")
    with pytest.raises(DevicesError, match="0 of 2 devices can take part") as error:
        found.check_quorum(0.5)
    one_line(error)
    assert error.value.reasons == found.reasons


def test_an_absent_device_may_come_later(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.link.gone.add("left")
    found = surveyed(rig)
    assert found.absent == {"left": "not connected"}
    assert found.counts(3)["left"] == [0, 0, 0]
    found.check_quorum(0.5)
    with pytest.raises(DevicesError, match=r"1 of 2 .* \(left: not connected\)"):
        found.check_quorum(1.0)


def test_a_device_that_refuses_the_set_up_is_left_out(tmp_path: Path) -> None:
    found = surveyed(Rig(tmp_path, {"left": EdgeFile(edge=EdgeSettings(max_mb=1e-4))}))
    assert found.misfits["left"][0].startswith("model of ")
    assert found.absent == {}
    assert list(found.counts(3)) == ["right"]


def test_the_width_of_a_device_that_is_left_out_is_ignored(tmp_path: Path) -> None:
    own = {"left": EdgeFile(edge=EdgeSettings(max_epochs=3, width=0.5)), "right": SHARES_ALL}
    found = surveyed(Rig(tmp_path, own))
    assert list(found.misfits) == ["left"]
    assert found.widths() == {}
    experiment = replace(EXPERIMENT, fleet=replace(EXPERIMENT.fleet, widths={"left": 0.5, "right": 0.5}))
    command = {"counts": {"right": [1] * 10}, "widths": {}}
    assert run_on_fleet._with_roster(experiment, None, command).experiment.fleet.widths == {"right": 0.5}
