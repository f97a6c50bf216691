"""MLflow's client reads settings, losses and accuracies; a run survives the failure of the store."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import one_line

from sheaf.core.errors import SheafError
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.report.trackers.mlflow import MLflow
from sheaf.runtime.observer import NullObserver, Observers

Ask = Callable[[Callable[[Any], Any]], Any]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, created once as this takes a second."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    ask_store(f"sqlite:///{file}", lambda client: client.search_experiments())
    return file


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    shutil.copy(empty, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def ask_store(uri: str, question: Callable[[Any], Any]) -> Any:
    """Return the answer of MLflow's client; suppress its dependencies' warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        return question(mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri))


def history(uri: str, run: str, key: str) -> list[tuple[int, float]]:
    points = ask_store(uri, lambda client: client.get_metric_history(run, key))
    return [(point.step, point.value) for point in points]


def only_run(uri: str) -> Any:
    experiment = ask_store(uri, lambda client: client.get_experiment_by_name("sheaf"))
    (run,) = ask_store(uri, lambda client: client.search_runs([experiment.experiment_id]))
    return run


def test_settings_losses_and_accuracies_are_logged(quick: Experiment, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = runs.run(quick, out=folder, observer=MLflow(uri, folder))
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["method.pretrain.epochs"] == "6"
    assert run.data.params["data.name"] == "digits"
    for site in ("edge-1", "cloud"):
        rows = [row for row in result.rows if row.site == site]
        found = history(uri, run.info.run_id, f"accuracy_all/{site}")
        assert found == [(at, row.accuracy_all) for at, row in enumerate(rows, start=1)]
    losses = history(uri, run.info.run_id, "loss/edge-1")
    assert [step for step, _ in losses] == sorted({step for step, _ in losses})


class Unplugged(NullObserver):
    """Ends the run when its third training begins."""

    def __init__(self, then: Callable[[], object]) -> None:
        self._calls = 0
        self._then = then

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self._calls += kind == "train"
        if self._calls == 3 and kind == "train":
            self._then()


def test_a_resumed_run_continues_its_mlflow_run(quick: Experiment, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(quick, out=folder, observer=Observers([MLflow(uri, folder), Unplugged(stop)]))
    assert only_run(uri).info.status == "KILLED"
    result = runs.resume(folder, observer=MLflow(uri, folder))
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_id == json.loads((folder / "mlflow.json").read_text())["run_id"]
    rows = [row.accuracy for row in result.rows if row.site == "edge-1"]
    assert history(uri, run.info.run_id, "accuracy/edge-1") == list(enumerate(rows, start=1))
    steps = [step for step, _ in history(uri, run.info.run_id, "loss/edge-1")]
    assert steps == sorted(set(steps))


def test_a_run_survives_the_failure_of_the_store(quick: Experiment, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    gone = Unplugged(lambda: (tmp_path / "mlflow.db").write_bytes(b"gone"))
    result = runs.run(quick, out=folder, observer=Observers([MLflow(uri, folder), gone]))
    assert len(result.rows) == 9
    log = (folder / "log.txt").read_text()
    assert log.count("failed, the run continues without it") == 1


@pytest.mark.parametrize("bad", ["nonsense://x", "sqlite:////proc/no/x.db"])
def test_an_unreachable_store_is_refused_before_the_run(bad: str, quick: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SheafError, match="cannot be written to") as error:
        runs.run(quick, out=folder, observer=MLflow(bad, folder))
    assert bad in one_line(error)
    assert not folder.exists()


def test_without_mlflow_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SheafError, match=r"pip install 'sheaf-edge\[mlflow\]'") as error:
        MLflow("sqlite:///x.db", tmp_path)
    one_line(error)
