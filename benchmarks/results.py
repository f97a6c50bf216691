"""Write the result of a benchmark to ``benchmarks/results/NAME.json``, with its provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sheaf.experiments.provenance import provenance

FOLDER = Path(__file__).parent / "results"


def publish(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: dict[str, Any],
    seed: int,
    data: dict[str, str],
    columns: Sequence[str] = (),
    device: str = "cpu",
) -> None:
    """Write ``rows`` with their provenance, and print the named ``columns``."""
    table = Table(title=name, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v := row[column], float) else str(v) for column in columns))
    if columns:
        Console(width=100).print(table)
    FOLDER.mkdir(exist_ok=True)
    content = {"rows": rows, "provenance": provenance(settings, seed, data, torch.device(device))}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
