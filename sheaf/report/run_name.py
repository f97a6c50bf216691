"""A run's name: method, data, model and seed."""

from __future__ import annotations

from pathlib import Path

from sheaf.core import objects
from sheaf.core.settings import plain
from sheaf.experiments.config import Experiment
from sheaf.report.formatting import format_number_of
from sheaf.report.provenance import setting_value
from sheaf.runtime.result import Result


def experiment_name(experiment: Experiment) -> str:
    """Return ``ecavg on digits with mlp, seed 0``."""
    method = plain(experiment.method)["name"]
    return _name(method, experiment.data.name, experiment.model.name, experiment.seed)


def run_name(result: Result) -> str:
    """Return ``ecavg on digits with mlp, seed 0, 2 edges``."""
    data, model = (str(setting_value(result, table, "name")) for table in ("data", "model"))
    edges = format_number_of(len(result.split), "edge")
    return f"{_name(result.method, data, model, setting_value(result, 'seed'))}, {edges}"


def _name(method: str, data: str, model: str, seed: object) -> str:
    folder = Path(objects.readable(data)).name
    return f"{objects.readable(method)} on {folder} with {objects.readable(model)}, seed {seed}"
