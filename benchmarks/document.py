"""Writes docs/measurements.md from the result files: ``python -m benchmarks.document``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import pictures
from benchmarks.results import FOLDER
from benchmarks.sections._tables import Rows
from benchmarks.sections.averaging import averaging
from benchmarks.sections.decoupled import decoupled
from benchmarks.sections.drop import drop
from benchmarks.sections.ecavg import ecavg
from benchmarks.sections.faults import faults
from benchmarks.sections.fleet import fleet
from benchmarks.sections.overhead import overhead
from benchmarks.sections.simulation import simulation
from benchmarks.sections.tracing import tracing

DOCUMENT = Path(__file__).parents[1] / "docs" / "measurements.md"

INTRODUCTION = """# What was measured

Made from `benchmarks/results/` by `python -m benchmarks.document`; each section names the command that made
its result file, and the file holds every row with commit, settings, versions, hardware and data fingerprint.
"""

SECTIONS: dict[str, Callable[[Rows], str]] = {
    "ecavg": ecavg,
    "averaging": averaging,
    "drop": drop,
    "decoupled": decoupled,
    "tracing": tracing,
    "overhead": overhead,
    "simulation": simulation,
    "fleet": fleet,
    "faults": faults,
}


def document() -> str:
    """The whole page, from the result files that are there."""
    parts = [INTRODUCTION.rstrip()]
    for name, section in SECTIONS.items():
        file = FOLDER / f"{name}.json"
        if file.exists():
            content = json.loads(file.read_text())
            parts += [section(content["rows"]), _provenance(name, content["provenance"])]
    return "\n\n".join(parts) + "\n"


def _provenance(name: str, provenance: Mapping[str, Any]) -> str:
    hardware = provenance["hardware"]
    return (
        f"`python -m benchmarks.{name}`, commit {str(provenance['commit'])[:12]}"
        f"{', with changes' if provenance['dirty'] else ''}, torch {provenance['versions']['torch']}, "
        f"{hardware['cpu']}, {hardware['threads']} threads, {provenance['finished'][:10]}."
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    measured = json.loads((FOLDER / "averaging.json").read_text())["rows"]
    pictures.gains(measured)
    pictures.sharing(measured)
