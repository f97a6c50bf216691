"""A run in MLflow: its settings as parameters, losses and accuracies as metrics.

A server that goes away in mid-run costs the record and not the run.
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

logger = logging.getLogger("sheaf")

EXPERIMENT = "sheaf"
"""The MLflow experiment that runs are filed under."""

ID = "mlflow.json"
"""Where a run's folder says which MLflow run it is, so that a resumed one goes on in the same."""


class MLflow:
    """``loss/SITE`` over training steps, ``accuracy/SITE`` and ``accuracy_all/SITE`` over measurements.

    Args:
        uri: of the tracking server or store, such as ``http://host:5000`` or ``sqlite:///mlflow.db``.
        folder: the run's.

    Raises:
        MissingExtraError: MLflow is not installed.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        # Read as MLflow is imported: it is to tell nobody else of the run, and not to try for minutes.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        with _unheard():
            self._library = extra("mlflow", "mlflow")
        self._uri = uri
        self._folder = folder
        self._axis = Axis()
        self._waiting: list[Any] = []
        self._lost = False

    def __enter__(self) -> MLflow:
        with _unheard():
            try:
                self._client = self._library.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                self._run = self._started()
            except Exception as error:  # of the store's, the network's or MLflow's own
                raise SheafError(f"--mlflow {self._uri} cannot be written to: {first_line(error)}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._send()
        kind = error[0]
        status = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        self._try(lambda: self._client.set_terminated(self._run, status))

    def note(self, text: str) -> None:
        """A tag."""
        self._try(lambda: self._client.set_tag(self._run, "note", text))

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Steps go on from where the sites are."""
        self._send()
        self._axis.began(sites)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """A point of ``loss/SITE``."""
        if at := self._axis.step(site, done, steps):
            self._point(f"loss/{site}", loss, at)
            if len(self._waiting) >= 100 or done == steps:
                self._send()

    def answered(self, site: str) -> None:
        """Nothing to write."""

    def absent(self, site: str, why: str) -> None:
        """As what is refused."""
        self.refused(site, why)

    def refused(self, site: str, why: str) -> None:
        """A tag."""
        self._try(lambda: self._client.set_tag(self._run, f"refused/{site}", why))

    def row(self, row: Row) -> None:
        """A point of the accuracies."""
        if at := self._axis.row(row.site):
            self._point(f"accuracy/{row.site}", row.accuracy, at)
            self._point(f"accuracy_all/{row.site}", row.accuracy_all, at)

    def _started(self) -> str:
        """The id of the MLflow run: the one that the folder names, or a new one."""
        place = self._folder / ID
        if place.exists():
            run: str = json.loads(place.read_text())["run_id"]
            latest = self._client.get_run(run).data.metrics
            last: dict[str, dict[str, int]] = {"loss": {}, "accuracy": {}, "accuracy_all": {}}
            for key in latest:
                name, _, site = key.partition("/")
                last[name][site] = max(metric.step for metric in self._client.get_metric_history(run, key))
            self._axis = Axis(last["loss"], last["accuracy_all"])
            self._client.update_run(run, "RUNNING")
            return run
        there = self._client.get_experiment_by_name(EXPERIMENT)
        filed = there.experiment_id if there else self._client.create_experiment(EXPERIMENT)
        run = self._client.create_run(filed, run_name=self._folder.resolve().name).info.run_id
        table = toml.loads((self._folder / "experiment.toml").read_text(encoding="utf-8"))
        entities = self._library.entities
        params = [entities.Param(key, str(value)[:6000]) for key, value in _flat(table)]
        for start in range(0, len(params), 100):  # as many as one request may hold
            self._client.log_batch(run, params=params[start : start + 100])
        place.write_text(json.dumps({"uri": self._uri, "run_id": run}))
        return run

    def _point(self, key: str, value: float, at: int) -> None:
        self._waiting.append(self._library.entities.Metric(key, value, int(time.time() * 1000), at))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), 1000):  # as many as one request may hold
            self._try(partial(self._client.log_batch, self._run, metrics=waiting[start : start + 1000]))

    def _try(self, call: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            with _unheard():
                call()
        except Exception as error:  # the store's, the network's or MLflow's own: the run matters more
            self._lost = True
            reason = first_line(error)
            logger.warning("MLflow at %s is lost, the run goes on without it: %s", self._uri, reason)


def _flat(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """``method.pretrain.epochs`` -> 5, for every setting."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


@contextmanager
def _unheard() -> Iterator[None]:
    """Keeps what MLflow's own libraries are warned of from the user, who can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
