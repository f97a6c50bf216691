"""Log a run to MLflow: settings as parameters, losses and accuracies as metrics.

If the server fails during the run, the run continues without MLflow.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sheaf.core import toml
from sheaf.core.errors import SheafError, first_line
from sheaf.core.optional_imports import extra
from sheaf.report.trackers._axis import Axis
from sheaf.runtime.result import Row
from sheaf.runtime.timeline import Timeline

logger = logging.getLogger("sheaf")

EXPERIMENT = "sheaf"
"""Name of the MLflow experiment that contains the runs."""

ID_FILE = "mlflow.json"
"""File in the run's folder with the MLflow run's id. A resumed run continues that MLflow run."""


class MLflow:
    """An observer that logs to MLflow.

    Metrics are ``loss/SITE`` over training steps, and ``accuracy/SITE`` and ``accuracy_all/SITE`` over
    measurements.

    Args:
        uri: the tracking server or store, such as ``http://host:5000`` or ``sqlite:///mlflow.db``.
        folder: the run's folder.

    Raises:
        MissingExtraError: MLflow is not installed.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        # MLflow reads these on import. They disable telemetry and limit retries, which can take minutes.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        with _quiet():
            self._library = extra("mlflow", "mlflow")
        self._uri = uri
        self._folder = folder
        self._axis = Axis()
        self._pending: list[Any] = []
        self._lost = False

    def __enter__(self) -> MLflow:
        with _quiet():
            try:
                self._client = self._library.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                self._run = self._run_id()
            except Exception as error:  # any exception, from the store, the network or MLflow
                raise SheafError(f"--mlflow {self._uri} cannot be written to: {first_line(error)}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._send()
        kind = error[0]
        status = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        self._try(lambda: self._client.set_terminated(self._run, status))

    def note(self, text: str) -> None:
        """Set the tag ``note``."""
        self._try(lambda: self._client.set_tag(self._run, "note", text))

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Send pending metrics; the sites' next steps follow those of earlier calls."""
        self._send()
        self._axis.began(sites)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Log a point of ``loss/SITE``."""
        if at := self._axis.step(site, done, steps):
            self._point(f"loss/{site}", loss, at)
            if len(self._pending) >= 100 or done == steps:
                self._send()

    def answered(self, site: str) -> None:
        """Log nothing."""

    def absent(self, site: str, why: str) -> None:
        """Set the tag ``refused/SITE``."""
        self.refused(site, why)

    def refused(self, site: str, why: str) -> None:
        """Set the tag ``refused/SITE``."""
        self._try(lambda: self._client.set_tag(self._run, f"refused/{site}", why))

    def timed(self, timeline: Timeline) -> None:
        """Log nothing."""

    def row(self, row: Row) -> None:
        """Log a point of each accuracy."""
        if at := self._axis.row(row.site):
            self._point(f"accuracy/{row.site}", row.accuracy, at)
            if row.accuracy_all is not None:
                self._point(f"accuracy_all/{row.site}", row.accuracy_all, at)

    def _run_id(self) -> str:
        """Return the id of the MLflow run: the one in the run's folder, or a new one."""
        id_file = self._folder / ID_FILE
        if id_file.exists():
            run: str = json.loads(id_file.read_text())["run_id"]
            latest = self._client.get_run(run).data.metrics
            last: dict[str, dict[str, int]] = {"loss": {}, "accuracy": {}, "accuracy_all": {}}
            for key in latest:
                name, _, site = key.partition("/")
                last[name][site] = max(metric.step for metric in self._client.get_metric_history(run, key))
            self._axis = Axis(last["loss"], last["accuracy"] | last["accuracy_all"])
            self._client.update_run(run, "RUNNING")
            return run
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        run = self._client.create_run(experiment_id, run_name=self._folder.resolve().name).info.run_id
        table = toml.loads((self._folder / "experiment.toml").read_text(encoding="utf-8"))
        entities = self._library.entities
        params = [entities.Param(key, str(value)[:6000]) for key, value in _flatten(table)]
        for start in range(0, len(params), 100):  # MLflow's limit per request
            self._client.log_batch(run, params=params[start : start + 100])
        id_file.write_text(json.dumps({"uri": self._uri, "run_id": run}))
        return run

    def _point(self, key: str, value: float, at: int) -> None:
        self._pending.append(self._library.entities.Metric(key, value, int(time.time() * 1000), at))

    def _send(self) -> None:
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), 1000):  # MLflow's limit per request
            self._try(partial(self._client.log_batch, self._run, metrics=pending[start : start + 1000]))

    def _try(self, call: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            with _quiet():
                call()
        except Exception as error:  # any exception, from the store, the network or MLflow
            self._lost = True
            reason = first_line(error)
            logger.warning("MLflow at %s failed, the run continues without it: %s", self._uri, reason)


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every setting: ``("method.pretrain.epochs", 5)``."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings of MLflow's own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
