"""A model of a run must compute the logits that the run recorded; otherwise it is not exported."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support import QUICK

import sheaf
from sheaf.core.errors import ModelFileError, RunFolderError
from sheaf.experiments import run as runs
from sheaf.experiments.export_run import export
from sheaf.experiments.run_check import open_model

MODEL = """
import torch
from torch import Tensor, nn

SCALE = 1.0

class Scaled(nn.Module):
    def __init__(self, num_classes, in_shape):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)
        self.scale = torch.tensor(SCALE)  # outside the state_dict

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1) * self.scale)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("code")
    (folder / "scaled_model.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("scaled_model")


@pytest.fixture(scope="module")
def run(code: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run_check") / "run"
    runs.run("ecavg-digits", changes=[*QUICK, "model.name=scaled_model:Scaled"], out=folder)
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


@pytest.mark.parametrize("site", ["edge-2", "cloud"])
def test_the_measured_model_is_exported(site: str, run: Path, tmp_path: Path) -> None:
    done = export(run, site, "safetensors", tmp_path / "m.safetensors")
    assert done.measured.startswith("compared with the run's own logits on 64 test examples: ")
    open_model(run, site, trust=True)


@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_a_model_that_is_built_with_other_values_is_refused(
    to: str, run: Path, code: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "SCALE", 0.5)
    with pytest.raises(ModelFileError, match=r"edge-1's model is not the one .* on 64 test examples"):
        export(run, "edge-1", to, tmp_path / f"m.{to}")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelFileError, match="cloud's model is not the one that the run measured"):
        open_model(run, trust=True)
    with pytest.raises(ModelFileError, match="edge-1's model is not the one that the run measured"):
        sheaf.load(run).model("edge-1")


def test_other_weights_are_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "weights/edge-1.safetensors").unlink()
    shutil.copy(copied / "weights/cloud.safetensors", copied / "weights/edge-1.safetensors")
    with pytest.raises(ModelFileError, match=r"edge-1.safetensors is not the model that the run measured"):
        export(copied, "edge-1", "safetensors", tmp_path / "m.safetensors")


def test_a_run_without_a_record_says_so(copied: Path, tmp_path: Path) -> None:
    (copied / "logits.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match=r"logits.safetensors is damaged"):
        export(copied, "cloud", "safetensors", tmp_path / "m.safetensors")
    (copied / "logits.safetensors").unlink()
    done = export(copied, "cloud", "safetensors", tmp_path / "m.safetensors")
    assert done.measured == "not compared with the run's own logits: the run recorded none of this model"
