"""The models that a device keeps: the final one of each run, unless it is worse than the current one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from device_rig import CLASSES, SHAPE, Rig, theta

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.errors import FleetError, ModelFileError
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.data.device_data import save_device_data
from sheaf.export.model_file import load_model
from sheaf.export.trained_model import read_card
from sheaf.fleets.remote.device_models import DeviceModels, KeptModel, now, read_kept
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings
from sheaf.models.build import ModelSettings, build_model
from sheaf.models.card import Card
from sheaf.training.network import Network

HALF = {"held_out": 0.5, "name": "first"}
MLP = ModelSettings(name="mlp", options={"hidden": 8})
COLLECT = Task("collect", 9, 5)
ZERO = {name: torch.zeros_like(value) for name, value in theta().items()}


def separable(count: int = 60) -> Samples:
    """Samples whose brightness tells their class."""
    labels = torch.arange(count) % 3
    noise = torch.randint(20, (count, *SHAPE), generator=generator(5))
    return Samples.of((noise + 100 * labels[:, None, None, None]).to(torch.uint8), labels)


class Device:
    """A device in one run after another."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.own = EdgeFile(edge=EdgeSettings(**settings))
        self.models = DeviceModels(folder / "left" / "state")

    def run(self, *tasks: Task, collect: Task | None = None, **setup: Any) -> dict[str, Any]:
        """Do the tasks of a run and its ``collect``; return the device's decision."""
        rig = Rig(self.folder, {"left": self.own}, deadline=300.0, setup=HALF | setup)
        save_device_data(self.folder / "left" / "own.safetensors", separable(), separable(6), CLASSES)
        for task in (*tasks, collect or COLLECT):
            (update,) = rig.fleet.run({"left": task})
            assert isinstance(update, Update), update
        decision: dict[str, Any] = update.metrics["replacement"]
        return decision

    def numbers(self) -> list[int]:
        return [each.kept.number for each in self.models.listed()]

    def current(self) -> int:
        return read_kept(self.models.current_file).number


def adopt(params: Any, call: int = 1) -> Task:
    return Task("adopt", call, 5, Blob.of(params))


GOOD = Task("train", 1, 5, Blob.of(theta()), Recipe(epochs=30, batch_size=8, lr=0.01))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The parameters of a model that knows the three classes."""
    device = Device(tmp_path_factory.mktemp("trained"))
    assert device.run(GOOD) == {"replaced": True, "held_out": 1.0, "samples": 30, "why": ""}
    return Blob.at(device.models.current_file).open()


def test_a_better_model_replaces_the_current_one_and_a_worse_one_does_not(
    tmp_path: Path, trained: dict[str, torch.Tensor]
) -> None:
    device = Device(tmp_path)
    first = device.run(adopt(ZERO))
    assert (first["replaced"], first["held_out"]) == (True, pytest.approx(1 / 3))
    better = device.run(adopt(trained), name="second")
    assert (better["replaced"], better["held_out"], better["before"]) == (True, 1.0, pytest.approx(1 / 3))
    content = device.models.current_file.read_bytes()
    worse = device.run(adopt(ZERO), name="third")
    assert (worse["replaced"], worse["before"], worse["samples"]) == (False, 1.0, 30)
    assert worse["why"] == (
        "held-out accuracy 0.3333, but 1.0000 of the current model on the same 30 samples: "
        "more than [edge] guard = 0.02 below"
    )
    assert device.models.current_file.read_bytes() == content
    assert [(each.kept.name, each.current) for each in device.models.listed()] == [
        ("third", False),
        ("second", True),
        ("first", False),
    ]
    card = read_card(device.models.current_file)
    assert (card.classes, card.in_shape) == (CLASSES, SHAPE)
    assert card.source is not None
    assert (card.source["run"], card.source["site"]) == ("second", "left")


def test_the_guard_can_be_switched_off(tmp_path: Path, trained: dict[str, torch.Tensor]) -> None:
    device = Device(tmp_path, guard="off")
    device.run(adopt(trained))
    assert device.run(adopt(ZERO))["replaced"]
    assert device.current() == 2


def test_a_repeated_call_stores_its_model_once_and_completes_a_replacement(tmp_path: Path) -> None:
    device = Device(tmp_path)
    run = {"run": "0" * 32}
    first = device.run(adopt(ZERO), **run)
    assert device.run(adopt(ZERO), **run) == first
    assert device.numbers() == [1]
    device.models.current_file.unlink()  # the power failed before the replacement
    assert device.run(adopt(ZERO), **run) == first
    assert device.current() == 1
    device.models.current_file.unlink()
    device.models.recover()
    assert device.current() == 1, "also if the cloud does not repeat the call"
    device.run(adopt({name: value + 1 for name, value in ZERO.items()}), run="1" * 32)
    device.models.roll_back()
    device.run(adopt({name: value + 1 for name, value in ZERO.items()}), run="1" * 32)
    assert device.current() == 1, "a repeated call does not undo a rollback"


def test_rollback_goes_back_by_one_or_to_a_number(tmp_path: Path) -> None:
    device = Device(tmp_path, guard="off", keep_models=3)
    with pytest.raises(FleetError, match="holds no current model yet"):
        device.models.roll_back()
    for number in range(4):
        device.run(adopt({name: value + number for name, value in ZERO.items()}))
    assert device.numbers() == [4, 3, 2], "the oldest is removed"
    contents = {each.kept.number: each.file.read_bytes() for each in device.models.listed()}
    for expected in (3, 2):
        device.models.roll_back()
        assert device.current() == expected
        assert device.models.current_file.read_bytes() == contents[expected]
    with pytest.raises(FleetError, match="no model before the current one, number 2, is kept"):
        device.models.roll_back()
    with pytest.raises(FleetError, match="no model has the number 9; there are: 4, 3, 2"):
        device.models.roll_back(9)
    device.models.roll_back(4)
    assert [each.abandoned for each in device.models.listed()] == [False, True, True]
    device.run(adopt(ZERO))
    assert device.numbers() == [5, 4, 3]


def test_adoptions_are_delivered_if_the_experiment_says_so(tmp_path: Path) -> None:
    for deliver, numbers in (("end", [1]), ("adoptions", [2, 1])):
        device = Device(tmp_path / deliver)
        other = {name: value + 1 for name, value in ZERO.items()}
        device.run(adopt(ZERO), adopt(other, 2), deliver=deliver)
        assert device.numbers() == numbers, "the model at the end is the one that was adopted last"


def test_other_formats_are_written_beside(tmp_path: Path) -> None:
    device = Device(tmp_path, formats=("pt2",))
    device.run(adopt(ZERO))
    graph = load_model(device.models.current_file.with_suffix(".pt2"), trust=True)
    inputs = separable(4).inputs
    assert torch.equal(graph.logits(inputs), load_model(device.models.current_file).logits(inputs))
    assert graph.card.source is not None
    assert graph.card.source["device"]["number"] == 1
    Device(tmp_path, guard="off").run(adopt({name: value + 1 for name, value in ZERO.items()}))
    assert not device.models.current_file.with_suffix(".pt2").exists(), "no file of an older model stays"


def test_a_disk_that_cannot_be_written_leaves_the_current_model(tmp_path: Path) -> None:
    device = Device(tmp_path)
    (tmp_path / "left" / "state").mkdir(parents=True)
    (tmp_path / "left" / "state" / "models").touch()  # no folder can be made there
    decision = device.run(adopt(ZERO))
    assert not decision["replaced"]
    assert decision["why"].startswith("the model is not stored: ")


def test_a_power_failure_at_any_write_leaves_the_old_or_the_new_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerFailure(BaseException):
        pass

    models, failed = DeviceModels(tmp_path), 0
    card = Card(classes=CLASSES, in_shape=SHAPE, mean=(0.5,), std=(0.25,), inputs="image", model=MLP)
    fsync = os.fsync
    for number in range(1, 12):
        left = number - 1

        def failing(handle: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerFailure
            fsync(handle)

        params = {name: value + number for name, value in ZERO.items()}
        kept = KeptModel(
            number=number,
            saved=now(),
            run=f"{number:032x}",
            call=1,
            name=f"run-{number}",
            draw=1,
            held_out=None,
            before=None,
            samples=0,
            replaced=True,
        )
        monkeypatch.setattr(os, "fsync", failing)
        try:
            models.draft(params, card)
            models.add(params, card, kept)
        except PowerFailure:
            failed += 1
        monkeypatch.setattr(os, "fsync", fsync)
        models.recover()
        current = read_kept(models.current_file).number
        assert current == max(each.kept.number for each in models.listed())
        assert Blob.at(models.current_file).open()["fc1.bias"][0] == current, "the file is complete"
    assert 3 <= failed < 11, "some of the last replacements are complete"


def test_a_sub_model_is_kept_with_its_own_classes(tmp_path: Path) -> None:
    device = Device(tmp_path)
    network = Network(build_model(MLP, 3, SHAPE, 1), SHAPE)
    cut = Cut(classes=(0, 2), other=True)
    params = network.submodel(cut).take(theta())
    for task_cut, blob in ((cut, params), (None, ZERO)):
        device.run(replace(adopt(blob), cut=task_cut), collect=replace(COLLECT, cut=task_cut))
    part, whole = (load_model(each.file).card for each in reversed(device.models.listed()))
    assert (part.outputs, part.other) == (("a", "c"), True)
    assert (whole.outputs, whole.other) == (CLASSES, False)
    assert device.models.listed()[0].kept.before is not None, "compared by class name"


def test_a_damaged_file_is_skipped(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.run(adopt(ZERO))
    (tmp_path / "left" / "state" / "models" / "000007.safetensors").write_bytes(b"x")
    device.models.current_file.write_bytes(b"x")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_kept(device.models.current_file)
    assert device.run(adopt({name: value + 1 for name, value in ZERO.items()}))["replaced"]
    assert device.current() == 8
