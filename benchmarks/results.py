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


def published(name: str) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Return the rows of a file, each with its commit, and the settings and data of its provenance.

    A benchmark whose runs take days adds to them: a run's folder may be on another machine, or gone.
    """
    file = FOLDER / f"{name}.json"
    if not file.exists():
        return [], {}, {}
    content = json.loads(file.read_text())
    origin = content["provenance"]
    rows = [row | {"commit": row.get("commit", origin["commit"])} for row in content["rows"]]
    return rows, origin["settings"], origin["data"]


def publish(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: dict[str, Any],
    seed: int,
    data: dict[str, str],
    columns: Sequence[str] = (),
    device: str = "cpu",
    folder: Path | None = None,
    commit: str | None = None,
) -> None:
    """Write ``rows`` with their provenance into a file, and print the named ``columns``.

    Args:
        name: of the file, without suffix.
        rows: plain JSON values.
        settings: of the benchmark, for the provenance.
        seed: likewise.
        data: name -> fingerprint of each dataset.
        columns: those to print; none by default.
        device: on which the rows were computed.
        folder: of the file; ``FOLDER`` by default.
        commit: the provenance's, where git cannot name it.
    """
    table = Table(title=name, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v := row[column], float) else str(v) for column in columns))
    if columns:
        Console(width=100).print(table)
    folder = folder or FOLDER
    folder.mkdir(exist_ok=True)
    origin = provenance(settings, seed, data, torch.device(device))
    content = {"rows": rows, "provenance": origin | {"commit": origin["commit"] or commit}}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
