"""A run that starts from the final models of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import QUICK, one_line

from sheaf.core.errors import RunFolderError, SettingError
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import prepare
from sheaf.experiments.start_from import StartModels
from sheaf.runtime.observer import NullObserver

NO_TRAINING = [change.rpartition("=")[0] + "=0" for change in QUICK if "epochs" in change]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose edges and cloud end with different models."""
    folder = tmp_path_factory.mktemp("first") / "run"
    runs.run("ecavg-digits", changes=QUICK, out=folder)
    return folder


def weights(folder: Path, site: str) -> bytes:
    return (folder / "weights" / f"{site}.safetensors").read_bytes()


def test_the_edges_start_from_their_own_models(first: Path, tmp_path: Path) -> None:
    """Without training, local edges end with the models that they started from, and the file is the same."""
    changes = (*QUICK, "method=local", "method.train.epochs=0")
    models = StartModels.of_run(first)
    experiment = models.adapt(load_experiment("ecavg-digits", changes))
    setup = models.begin(prepare(experiment))
    runs.start(setup, tmp_path / "second", {"data": None}, NullObserver(), models=models)
    assert {weights(tmp_path / "second", site) for site in ("edge-1", "edge-2")} == {
        weights(first, site) for site in ("edge-1", "edge-2")
    }
    assert weights(first, "edge-1") != weights(first, "edge-2")
    kept = StartModels.kept(tmp_path / "second")
    assert kept.cards == models.cards


def test_the_cloud_starts_from_its_own_model(first: Path, tmp_path: Path) -> None:
    changes = (*QUICK, "method=fedavg", "method.rounds=1", "method.local.epochs=0")
    models = replace(StartModels.of_run(first))
    models = StartModels({"cloud": models.files["cloud"]}, {"cloud": models.cards["cloud"]})
    setup = models.begin(prepare(models.adapt(load_experiment("ecavg-digits", changes))))
    runs.start(setup, tmp_path / "second", {"data": None}, NullObserver(), models=models)
    assert weights(tmp_path / "second", "cloud") == weights(first, "cloud")


def test_another_model_is_refused(first: Path, tmp_path: Path) -> None:
    experiment = load_experiment("ecavg-digits", (*QUICK, "model.options.hidden=7"))
    with pytest.raises(SettingError, match="use the same model in both") as error:
        StartModels.of_run(first).adapt(experiment)
    one_line(error)
    with pytest.raises(RunFolderError, match="holds no finished run"):
        StartModels.of_run(tmp_path)
