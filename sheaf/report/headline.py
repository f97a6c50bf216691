"""A run in one line: its name, and its main figures."""

from __future__ import annotations

from pathlib import Path

from sheaf.core import objects
from sheaf.core.types import CLOUD
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


def headline(result: Result) -> str:
    """Return the final accuracies: mean and worst of the edges on own classes, the cloud on all."""
    edges = [row.accuracy for site in result.split if (row := result.final(site))]
    parts = []
    if edges:
        parts.append(f"edges {sum(edges) / len(edges):.4f} (worst {min(edges):.4f})")
    if cloud := result.final(CLOUD):
        parts.append(f"cloud {cloud.accuracy_all:.4f}")
    return ", ".join(parts) or "nothing measured"
