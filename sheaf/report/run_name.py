"""A run's name: method, data, model, edges and seed."""

from __future__ import annotations

from pathlib import Path

from sheaf.core import objects
from sheaf.report.formatting import format_number_of
from sheaf.report.provenance import setting_value
from sheaf.runtime.result import Result


def run_name(result: Result) -> str:
    """Return ``ecavg on digits with mlp, 2 edges, seed 0``."""
    data = Path(objects.readable(str(setting_value(result, "data", "name")))).name
    model = objects.readable(str(setting_value(result, "model", "name")))
    seed = setting_value(result, "seed")
    edges = format_number_of(len(result.split), "edge")
    return f"{objects.readable(result.method)} on {data} with {model}, {edges}, seed {seed}"
