"""An exported file reproduces the run's measurements; otherwise there is a one-line error and no file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import QUICK, one_line

from sheaf.core.errors import ModelFileError, RunFolderError, SheafError, UnknownNameError
from sheaf.core.recipe import Recipe
from sheaf.data.load import load_dataset
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.export_run import export
from sheaf.export.formats import onnx
from sheaf.export.model_file import FORMATS, load_model
from sheaf.methods.decoupled import Decoupled


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose edges have sub-models with an "other" output."""
    quick = load_experiment("ecavg-digits", QUICK)
    method = Decoupled(train=Recipe(epochs=8, batch_size=32), negatives="outliers")
    folder = tmp_path_factory.mktemp("export") / "run"
    runs.run(replace(quick, method=method), out=folder)
    return folder


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("site", ["edge-2", "cloud"])
def test_a_file_classifies_as_the_run_measured(site: str, to: str, run: Path, tmp_path: Path) -> None:
    done = export(run, site, to, tmp_path / f"m.{to}")
    assert done.difference <= 1e-4
    assert (done.examples, done.agreed) == (100, 100)
    assert done.checked_on == "test images of digits"
    result = runs.Result.read(run)
    final = result.final(site)
    assert final is not None
    model = load_model(done.file, trust=True)
    names = model.card.outputs
    assert done.classes == names == (tuple("56789") if site == "edge-2" else tuple("0123456789"))
    assert model.card.model is None or model.card.model.weights is None
    assert model.card.source is not None
    assert (model.card.source["site"], model.card.source["method"]) == (site, "decoupled")
    test = load_dataset(load_experiment(run / "experiment.toml").data).test
    labels = [names.index(str(label)) if str(label) in names else -1 for label in test.labels.tolist()]
    own = torch.tensor(labels) >= 0
    found = model.logits(test.inputs[test.positions]).argmax(1)
    accuracy = (found == torch.tensor(labels))[own].float().mean().item()
    assert accuracy == pytest.approx(final.accuracy), "the run's accuracy"
    assert [path.name for path in tmp_path.iterdir()] == [f"m.{to}"]


def test_the_default_file_is_in_the_current_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(run, "edge-1", "safetensors").file == Path("edge-1.safetensors")
    with pytest.raises(ModelFileError, match=r"edge-1\.safetensors exists"):
        export(run, "edge-1", "safetensors")


def test_an_unknown_site_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'edge-1'.*there are: cloud, edge-1, edge-2"):
        export(run, "egde-1", "onnx", tmp_path / "m.onnx")


def test_a_file_that_differs_from_the_model_is_removed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = onnx.write

    def without_bias(path: Path, model: torch.nn.Module, card: object) -> None:
        model.fc2.bias.data += 1e-3
        usual(path, model, card)

    monkeypatch.setattr(onnx, "write", without_bias)
    with pytest.raises(ModelFileError, match=r"a logit differs by 0\.001, 0\.0001 is allowed") as error:
        export(run, "cloud", "onnx", tmp_path / "m.onnx")
    one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights(run: Path, tmp_path: Path) -> None:
    weights = run / "weights" / "edge-1.safetensors"
    whole = weights.read_bytes()
    try:
        for damaged in (whole[:-40], b"", whole[:20]):
            weights.write_bytes(damaged)
            with pytest.raises(SheafError, match=r"edge-1\.safetensors") as error:
                export(run, "edge-1", "safetensors", tmp_path / "m.safetensors")
            one_line(error)
        weights.unlink()
        with pytest.raises(SheafError, match=r"edge-1\.safetensors"):
            export(run, "edge-1", "safetensors", tmp_path / "m.safetensors")
    finally:
        weights.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite(run: Path, tmp_path: Path) -> None:
    weights = run / "weights" / "cloud.safetensors"
    whole = weights.read_bytes()
    try:
        with safe_open(weights, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(weights)
        tensors["fc1.bias"][0] = float("nan")
        save_file(tensors, weights, metadata)
        with pytest.raises(SheafError, match="contain NaN or infinity"):
            export(run, "cloud", "onnx", tmp_path / "m.onnx")
    finally:
        weights.write_bytes(whole)


def test_a_run_that_is_not_finished(run: Path, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(RunFolderError, match=r"holds no finished run.*--resume"):
        export(tmp_path, "cloud", "onnx", tmp_path / "m.onnx")


def test_a_missing_library_is_one_line_with_the_remedy(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SheafError, match=r"pip install 'sheaf-edge\[export\]'") as error:
        export(run, "cloud", "onnx", tmp_path / "m.onnx")
    one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["m.onnx", "m", "m.pt2"])
def test_a_suffix_of_another_format_is_refused(out: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"must end in \.safetensors"):
        export(run, "cloud", "safetensors", tmp_path / out)


def test_without_the_dataset_random_examples_are_compared(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    for label in ("dark", "light"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for at in range(12):
            grey = torch.randint(0, 100, (8, 8), generator=draws, dtype=torch.uint8) + 150 * (
                label == "light"
            )
            Image.fromarray(grey.numpy()).save(tmp_path / "photos" / label / f"{at}.png")
    changes = [f"data.name={tmp_path / 'photos'}", "partition.name=iid", "method=central"]
    runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "run")
    (tmp_path / "photos").rename(tmp_path / "gone")
    done = export(tmp_path / "run", "cloud", "safetensors", tmp_path / "m.safetensors")
    assert done.checked_on == "random examples (the run's dataset is not available here)"
    assert done.examples == 256
