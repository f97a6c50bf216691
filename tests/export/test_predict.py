"""Prediction needs the model's file alone, and agrees with the run's evaluation."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from support import QUICK, one_line

from sheaf.core.errors import DataError, ModelFileError
from sheaf.data.load import load_dataset
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.export_run import export
from sheaf.experiments.run_check import open_model
from sheaf.export.model_file import FORMATS, LoadedModel
from sheaf.export.predict import predict, read_input
from sheaf.models.card import Card


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the exported models of a run, and ten test images of digits; the run is gone."""
    folder = tmp_path_factory.mktemp("predict")
    settings = load_experiment("ecavg-digits", QUICK)
    runs.run(settings, out=folder / "run")
    for to in FORMATS:
        export(folder / "run", "cloud", to, folder / f"digits.{to}")
    shutil.rmtree(folder / "run")
    test = load_dataset(settings.data).test
    for at in range(10):
        pixels, label = test.inputs[test.positions[at]][0].numpy(), int(test.labels[at])
        Image.fromarray(pixels).save(folder / f"{label}-{at}.png")
    return folder


def test_digits_by_every_format(models: Path) -> None:
    files = sorted(models.glob("*.png"))
    said = []
    for name in ("digits.onnx", "digits.pt2", "digits.safetensors"):
        found = list(predict(open_model(models / name, trust=True), files))
        assert [one.file for one in found] == [str(file) for file in files]
        right = sum(one.label == file.name[0] for one, file in zip(found, files, strict=True))
        assert right >= 9, "of ten"
        for one in found:
            assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert one.probability == max(one.probabilities.values())
            assert one.none_of_these is None
        said.append([[*one.probabilities.values()] for one in found])
    assert np.allclose(said[0], said[1], atol=1e-4)
    assert np.allclose(said[0], said[2], atol=1e-4)


def test_the_command(
    models: Path, sheaf: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shutil.copy(models / "digits.onnx", tmp_path)
    files = sorted(models.glob("*.png"))
    shown = sheaf("predict", "digits.onnx", *files)
    assert shown.returncode == 0, shown.stderr
    assert "probability" in shown.stdout
    lines = sheaf("predict", "digits.onnx", *files, "--json").stdout.splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 10
    assert first["file"] == str(files[0])
    assert first["label"] == files[0].name[0]
    assert set(first["probabilities"]) == set("0123456789")
    refused = sheaf("predict", models / "digits.pt2", files[0])
    assert refused.returncode == 2
    assert "--trust" in refused.stderr


def test_a_photograph_is_resized_to_the_models_input(models: Path, tmp_path: Path) -> None:
    model = open_model(models / "digits.safetensors")
    file = sorted(models.glob("*.png"))[0]
    Image.open(file).resize((80, 80), Image.Resampling.NEAREST).convert("RGB").save(tmp_path / "large.webp")
    (small,), (large,) = predict(model, [file]), predict(model, [tmp_path / "large.webp"])
    assert small.label == large.label


def test_files_that_cannot_be_read(models: Path, tmp_path: Path) -> None:
    model = open_model(models / "digits.safetensors")
    (tmp_path / "text.png").write_text("no picture")
    for bad in (tmp_path / "text.png", tmp_path / "no.png", tmp_path):
        with pytest.raises(DataError) as error:
            list(predict(model, [sorted(models.glob("*.png"))[0], bad]))
        assert str(bad) in one_line(error)


@pytest.mark.parametrize(
    ("name", "said"), [("no.onnx", "there is no model"), ("digits.tflite", "must end in .onnx, .pt2")]
)
def test_missing_and_unknown_model_files_are_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "digits.tflite").touch()
    with pytest.raises(ModelFileError) as error:
        open_model(tmp_path / name)
    assert said in one_line(error)


def test_a_model_of_features_takes_no_files() -> None:
    card = Card(classes=("a",), in_shape=(2, 1, 7), mean=(0, 0), std=(1, 1), inputs="features")
    with pytest.raises(ModelFileError, match="2x1x7 features computed by its dataset"):
        read_input(card, Path("x.png"))


def test_the_probability_of_none_of_these_follows_from_the_logits(tmp_path: Path) -> None:
    card = Card(classes=("a", "b"), in_shape=(1, 2, 2), mean=(0,), std=(1,), inputs="image", other=True)
    model = LoadedModel(card, lambda inputs: torch.tensor([[-9.0, -8.0]]).expand(len(inputs), 2))
    Image.new("L", (2, 2)).save(tmp_path / "black.png")
    (found,) = predict(model, [tmp_path / "black.png"])
    assert found.label == "b"
    z = torch.tensor([-9.0, -8.0, 0.0]).softmax(0).tolist()
    assert found.none_of_these == pytest.approx(z[2])
    assert found.probability == pytest.approx(z[1])


RATE = 8000
HERTZ = {"low": 300, "middle": 900, "high": 2700}


def test_sounds_from_wav_files_alone(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name, hertz in HERTZ.items():
        (tmp_path / "tones" / name).mkdir(parents=True)
        for at in range(15):
            tone(tmp_path / "tones" / name / f"{at}.wav", hertz * draws.uniform(0.9, 1.1), RATE, 1.0)
    experiment = load_experiment(
        "ecavg-digits",
        [
            f"data.name={tmp_path / 'tones'}",
            "data.seconds=0.5",
            "partition.name=iid",
            "model={name='kws_cnn',options={width=8}}",
            "method=central",
            "method.train={epochs=12,batch_size=8,lr=0.01}",
        ],
    )
    runs.run(experiment, out=tmp_path / "run")
    export(tmp_path / "run", "cloud", "onnx", tmp_path / "tones.onnx")
    shutil.rmtree(tmp_path / "tones")
    shutil.rmtree(tmp_path / "run")
    model = open_model(tmp_path / "tones.onnx")
    assert model.card.sound is not None
    assert (model.card.sound.rate, model.card.sound.seconds) == (RATE, 0.5)
    files = []
    for name, hertz in HERTZ.items():
        files.append(tmp_path / f"{name}.wav")
        tone(files[-1], hertz, 16_000, 0.8)  # another rate, another length
    assert [found.label for found in predict(model, files)] == list(HERTZ)


def tone(file: Path, hertz: float, rate: int, seconds: float) -> None:
    time = np.arange(int(rate * seconds)) / rate
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * hertz * time), rate)


def test_a_site_of_a_run(quick: Experiment, tmp_path: Path) -> None:
    runs.run(quick, out=tmp_path / "run")
    assert open_model(tmp_path / "run", "edge-1").card.outputs == tuple("0123456789")


def test_a_deep_image_is_scaled_like_the_training_data(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 255, np.uint16)).save(tmp_path / "dark.png")
    for bits, value in ((None, 255), (12, 15), (16, 0)):
        form = {"in_shape": (1, 2, 2), "mean": (0.0,), "std": (1.0,), "inputs": "image", "bits": bits}
        card = Card(classes=("a", "b"), **form)
        assert read_input(card, tmp_path / "dark.png").unique().tolist() == [value]
