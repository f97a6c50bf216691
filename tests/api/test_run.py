"""Runs from Python: names, paths and objects in, a finished run out."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from support import QUICK, one_line
from torch import nn

import sheaf
from sheaf.core import objects
from sheaf.core.errors import SheafError
from sheaf.data import load as loading
from sheaf.experiments.run_check import open_model

FEW = {"method.pretrain.epochs": 2, "method.finetune.epochs": 1, "method.retrain.epochs": 1}


class Images(torch.utils.data.Dataset):
    """Digits as a torch dataset of float tensors; every item is (1, 8, 8) and an int."""

    classes = tuple("abcdefghij")

    def __init__(self, count: int = 300) -> None:
        digits = load_digits()
        self.images = torch.tensor(digits.images[:count, None], dtype=torch.float32)
        self.labels = digits.target[:count].tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.labels[index]


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder: Path) -> sheaf.Run:
    """A run whose data and model are objects."""
    return sheaf.run(
        "ecavg-digits", out=folder / "objects", seed=1, data=Images(), model=linear(), changes=FEW
    )


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tables of objects and of loaded data are as at the start of a process."""
    monkeypatch.setattr(objects, "_table", {})
    loading._load_with_notes.cache_clear()
    yield
    loading._load_with_notes.cache_clear()


def test_names_are_replaced_as_on_the_command_line(folder: Path) -> None:
    threads = torch.get_num_threads()
    changes = [*QUICK[:2], f"fleet.threads={threads + 1}"]
    run = sheaf.run("ecavg-digits", out=str(folder / "names"), seed=3, method="local", changes=changes)
    assert torch.get_num_threads() == threads
    settings = run.result.provenance["settings"]
    assert (run.result.method, settings["seed"], settings["data"]["limit"]) == ("local", 3, 400)
    assert run.sites == ("edge-1", "edge-2")
    assert re.fullmatch(r"<Run local on digits with mlp, seed 3, 2 edges: .*folder '.*names'>", repr(run))


def test_the_run_has_models_rows_pictures_and_a_report(run: sheaf.Run) -> None:
    images = Images()
    raw = run.model("edge-1", normalised=True)(images.images)
    card = run.card("edge-1")
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    assert torch.allclose(run.model("edge-1")((images.images - mean) / std), raw, atol=1e-5)
    assert card.outputs == Images.classes
    assert [row.site for row in run.rows if row.stage == "before update"] == ["edge-1", "edge-2"]
    assert run.plot().axes
    assert "matplotlib" in type(run.plot("curves")).__module__
    with pytest.raises(SheafError, match="no picture is named 'gian'"):
        run.plot("gian")
    assert run.report() == run.folder / "report.html"
    html = run._repr_html_()
    assert "edge-1" in html
    assert str(run.folder) in html


def test_measurements_as_a_data_frame(run: sheaf.Run) -> None:
    frame = run.to_pandas()
    assert list(frame["accuracy"]) == [row.accuracy for row in run.rows]
    assert set(frame["stage"]) >= {"before update", "after retraining"}


def test_a_data_frame_needs_pandas(run: sheaf.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    command = r"pip install 'sheaf-edge\[pandas\]'"
    with pytest.raises(SheafError, match=f"pandas is not installed; install it with: {command}"):
        run.to_pandas()


def test_the_provenance_describes_objects(run: sheaf.Run) -> None:
    data, model = run.result.provenance["objects"].values()
    assert (data["type"], data["train"] + data["test"], data["classes"]) == ("Images", 300, 10)
    assert data["sha256"] == next(iter(run.result.provenance["data"].values()))
    assert (model["type"], model["parameters"]) == ("Sequential", 650)
    title = run.result.provenance["settings"]["title"]
    assert title.endswith("one hidden layer; data changed to Images; model changed to Sequential")


def test_an_instance_starts_from_its_weights_and_stays_as_it_is(folder: Path) -> None:
    given = linear(5)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    sites = sheaf.sites("ecavg-digits", model=given)
    assert all(torch.equal(sites.theta[name], value) for name, value in before.items())
    assert sheaf.sites("ecavg-digits", model=linear(6)).theta["1.bias"].ne(sites.theta["1.bias"]).any()
    with pytest.raises(SheafError, match="weights of its own"):
        sheaf.run("ecavg-digits", out=folder / "own", model=given, changes={**FEW, "method.own_start": True})
    assert all(torch.equal(given.state_dict()[name], value) for name, value in before.items())


def test_a_loaded_run_and_an_export_in_the_same_process(run: sheaf.Run, tmp_path: Path) -> None:
    again = sheaf.load(str(run.folder))
    assert again.rows == run.rows
    assert again.model("cloud")[1].weight.equal(run.model("cloud")[1].weight)
    file = run.export("edge-1", "safetensors", tmp_path / "edge-1.safetensors")
    assert open_model(file, trust=True).card.classes == Images.classes


@pytest.mark.usefixtures("another_process")
def test_another_process_needs_the_model_again(run: sheaf.Run) -> None:
    again = sheaf.load(run.folder)
    with pytest.raises(SheafError, match="is a Python object of another process; give it again") as error:
        again.model("edge-1")
    assert "sheaf.load(FOLDER, model=…)" in one_line(error)
    with pytest.raises(SheafError, match="digest of its structure") as error:
        sheaf.load(run.folder, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)))
    assert "give the same model" in one_line(error)
    given = sheaf.load(run.folder, model=linear(9))  # other weights, the same structure
    assert given.model("edge-1")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


class Half(nn.Linear):
    """A layer whose code, not its structure, decides the logits."""

    factor = 0.5

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.factor * super().forward(inputs)


@pytest.mark.usefixtures("another_process")
def test_a_model_of_other_code_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sheaf.run(
        "ecavg-digits",
        out=folder / "half",
        model=nn.Sequential(nn.Flatten(), Half(64, 10)),
        changes=FEW,
    )
    assert run.model("edge-1")
    monkeypatch.setattr(Half, "factor", 0.7)
    with pytest.raises(SheafError, match="not the one that the run measured"):
        run.model("edge-1")


@pytest.mark.usefixtures("another_process")
def test_another_process_resumes_with_the_same_objects_only(run: sheaf.Run, tmp_path: Path) -> None:
    open_run = tmp_path / "open"
    shutil.copytree(run.folder, open_run)
    (open_run / "result.json").unlink()
    (open_run / "journal" / "journal.jsonl").unlink()
    with pytest.raises(SheafError, match=r"dataset 'object:Images_\w+' is a Python object .*sheaf.resume"):
        sheaf.resume(open_run)
    with pytest.raises(SheafError, match="digest of its content"):
        sheaf.resume(open_run, data=Images(200), model=linear())
    with pytest.raises(SheafError, match="digest of its start weights"):
        sheaf.resume(open_run, data=Images(), model=linear(1))
    resumed = sheaf.resume(open_run, data=Images(), model=linear())
    assert resumed.rows == run.rows


def test_objects_that_a_named_run_does_not_need(folder: Path) -> None:
    named = sheaf.run("ecavg-digits", out=folder / "named", changes=FEW)
    with pytest.raises(SheafError, match="found by its name 'mlp'; remove model="):
        sheaf.load(named.folder, model=linear())


def test_builders_and_classes() -> None:
    def narrow(num_classes: int, width: int = 3) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))

    partition = {"name": "dirichlet", "edges": 3}
    changes = {"model.options.width": 5}
    sites = sheaf.sites("ecavg-digits", model=narrow, partition=partition, changes=changes, seed=2)
    assert repr(sites) == "<Sites: edge-1, edge-2, edge-3 and the cloud>"
    assert sites.theta["1.weight"].shape == (5, 64)
    assert sheaf.sites("ecavg-digits", model=linear).theta.keys() == {"1.weight", "1.bias"}


def test_a_method_by_hand() -> None:
    with sheaf.sites("ecavg-digits", data=Images(), model=linear(), seed=4) as sites:
        once = sheaf.Recipe(epochs=1)
        theta = sheaf.ECAvg(pretrain=once, finetune=once, retrain=once).run(*sites)
    assert theta.keys() == sites.theta.keys()
    assert [row.stage for row in sites.rows][-1] == "initial weights"
    assert sites.cost["edge-1"].train_macs > 0


def test_the_sites_keep_their_folder_as_long_as_an_edge_or_the_cloud_is_used() -> None:
    theta, fleet, cloud, log = sheaf.sites("ecavg-digits", seed=4)
    cloud.pool(fleet.share(sheaf.Share(count=20)))
    log("start", cloud.evaluate(theta))
    assert [row.stage for row in log.rows] == ["start"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": 3}, "int is not data that sheaf can read"),
    "a class that needs arguments": ({"data": Images.__getitem__}, "the data cannot be made: TypeError"),
    "a class of no data": ({"data": torch.utils.data.Dataset}, "Dataset has no length"),
    "labels below 0": ({"data": (torch.zeros(9, 8, 8), torch.arange(9) - 1)}, "labels range from -1 to 7"),
    "labels of another type": ({"data": (torch.zeros(4, 8, 8), torch.rand(4))}, "labels of the train split"),
    "flat examples": ({"data": (torch.zeros(4, 64), torch.arange(4) % 2)}, "has the shape (64,)"),
    "examples of another type": (
        {"data": (torch.zeros(4, 8, 8, dtype=torch.int64), torch.arange(4) % 2)},
        "convert them to uint8",
    ),
    "a model for another shape": ({"model": nn.Linear(3, 3)}, "does not take inputs of 1x8x8"),
    "too few logits": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}, "(N, 10)"),
    "no model": ({"model": 3}, "give a name, an nn.Module, or a callable"),
    "a builder of nothing": ({"model": lambda: None}, "must return a torch.nn.Module"),
    "no method": ({"method": 3}, "give a name, or an instance of a method's class"),
    "an unknown method": ({"method": "ecavgg"}, "did you mean 'ecavg'?"),
}


@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_a_bad_object_is_an_error_of_one_line(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SheafError) as error:
        sheaf.run("ecavg-digits", out=tmp_path / "bad", **given)
    assert said in one_line(error)
    assert not (tmp_path / "bad").exists()


def test_a_comparison_reuses_its_runs(folder: Path) -> None:
    given: dict[str, Any] = {"model": linear(), "changes": FEW, "out": folder / "compared"}
    first = sheaf.compare("ecavg-digits", ["ecavg", "local"], **given)
    assert [summary.method for summary in first] == ["ecavg", "local"]
    assert list(first.runs) == ["ecavg-0", "local-0"]
    again = sheaf.compare("ecavg-digits", "ecavg,local", **given)
    assert list(again) == list(first)
    assert list(again.to_pandas()["method"]) == ["ecavg", "local"]
    assert "ecavg" in again._repr_html_()
    assert repr(again).startswith("<Comparison: mean edge ecavg ")
