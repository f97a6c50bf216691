"""Generate docs/measurements.md from the result files: ``python -m benchmarks.document``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import pictures, rival_pictures
from benchmarks.results import FOLDER
from benchmarks.sections._tables import Rows
from benchmarks.sections.averaging import averaging
from benchmarks.sections.busy import busy
from benchmarks.sections.clock import clock
from benchmarks.sections.clock_overhead import clock_overhead
from benchmarks.sections.codecs import codecs
from benchmarks.sections.decoupled import decoupled
from benchmarks.sections.drop import drop
from benchmarks.sections.ecavg import ecavg
from benchmarks.sections.faults import faults
from benchmarks.sections.fleet import fleet
from benchmarks.sections.fleet_rounds import fleet_rounds
from benchmarks.sections.footprint import footprint
from benchmarks.sections.full_size import full_size
from benchmarks.sections.long_run import long_run
from benchmarks.sections.model_check import model_check
from benchmarks.sections.overhead import overhead
from benchmarks.sections.plan import plan, plan_prices
from benchmarks.sections.privacy import privacy
from benchmarks.sections.processes import processes
from benchmarks.sections.remedies import remedies
from benchmarks.sections.rivals import rivals
from benchmarks.sections.simulation import simulation
from benchmarks.sections.start import start
from benchmarks.sections.statistics_head import statistics_head
from benchmarks.sections.taking_part import taking_part
from benchmarks.sections.tracing import tracing
from benchmarks.sections.training_heap import training_heap

DOCUMENT = Path(__file__).parents[1] / "docs" / "measurements.md"

INTRODUCTION = """# Measurements

`python -m benchmarks.document` generates this page from `benchmarks/results/`. Each section ends with the
command that produced its result file. The file contains every row, with commit, settings, versions, hardware
and data fingerprint.

Terms: *edges, mean* and *worst edge* are accuracies on the test images of the edge's own classes; *cloud* is
the accuracy of the cloud's model on all classes; *work* is multiply-adds of training; *sent* is the bytes
sent by all sites.
"""

SECTIONS: dict[str, Callable[[Rows], str]] = {
    "ecavg": ecavg,
    "averaging": averaging,
    "drop": drop,
    "remedies": remedies,
    "taking_part": taking_part,
    "decoupled": decoupled,
    "statistics_head": statistics_head,
    "full_size": full_size,
    "tracing": tracing,
    "model_check": model_check,
    "start": start,
    "overhead": overhead,
    "busy": busy,
    "simulation": simulation,
    "processes": processes,
    "long_run": long_run,
    "fleet": fleet,
    "fleet_rounds": fleet_rounds,
    "rivals": rivals,
    "privacy": privacy,
    "clock": clock,
    "clock_overhead": clock_overhead,
    "codecs": codecs,
    "plan": plan,
    "plan_prices": plan_prices,
    "training_heap": training_heap,
    "footprint": footprint,
    "faults": faults,
}


def document() -> str:
    """Return the page, with a section for each existing result file."""
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
    pictures.drop(json.loads((FOLDER / "drop.json").read_text())["rows"])
    for name in ("rivals", "privacy"):
        if (file := FOLDER / f"{name}.json").exists():
            getattr(rival_pictures, name)(json.loads(file.read_text())["rows"])
    if (file := FOLDER / "taking_part.json").exists():
        pictures.taking_part(json.loads(file.read_text())["rows"])
