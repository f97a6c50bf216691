"""The commands of ``python -m benchmarks.simulation``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.results import FOLDER, publish
from benchmarks.simulation.comparison import compared
from benchmarks.simulation.growth import grow, grown
from benchmarks.simulation.jobs import JOBS, SEED, SIMULATORS
from benchmarks.simulation.journaling import journaled
from benchmarks.simulation.lone_site import trained_alone
from benchmarks.simulation.merging import merged
from benchmarks.simulation.profiling import profiled
from benchmarks.simulation.simulators import PACKAGES, create
from benchmarks.simulation.step_order import ordered
from sheaf.experiments.provenance import provenance
from sheaf.experiments.setup import prepare

ALONE = {"merge": merged, "journal": journaled, "order": ordered, "lone": trained_alone}
"""Measurements beside the jobs, of the CPU."""

app = typer.Typer(add_completion=False)

Device = Annotated[str, typer.Option(help="Where sheaf and the bare loop compute: cpu or cuda.")]
Only = Annotated[list[str] | None, typer.Option(help="A job's name, or its number from 1; all by default.")]


@app.command()
def setup(
    folder: Annotated[Path, typer.Argument(help="Where the environments are created.")],
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SIMULATORS)}.")] = None,
) -> None:
    """Create an environment for each of the other simulators; those that exist stay."""
    for name in only or SIMULATORS:
        create(name, folder)


@app.command()
def run(
    environments: Annotated[Path | None, typer.Option(help="The folder that setup filled.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A job's name or number from 1, growth, merge, journal, order or lone; all by default."
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Run the named jobs, and publish ``simulation.json``; other jobs keep their rows."""
    published = "simulation" if device == "cpu" else f"simulation-{device}"
    file = FOLDER / f"{published}.json"
    rows = {}
    if file.exists():
        before = json.loads(file.read_text())
        cpu = {"cpu": before["provenance"]["hardware"]["cpu"]}  # of rows without one
        rows = {row["job"]: cpu | row for row in before["rows"]}
    origin = provenance({}, SEED, {}, torch.device(device))
    common = {"commit": origin["commit"], "cpu": origin["hardware"]["cpu"]}
    for name in only or [*JOBS, "growth", *(ALONE if device == "cpu" else ())]:
        if name == "growth":
            measured = grown(device)
        elif name in ALONE:
            measured = [ALONE[name]()]
        else:
            job = _job(name)
            measured = [compared(job, environments, device) | {"profile": profiled(JOBS[job], device)}]
        rows |= {row["job"]: row | common for row in measured}
    fingerprints = {
        job.data: prepare(replace(job, edges=10).experiment(device)).dataset.fingerprint
        for job in JOBS.values()
    }
    rows = {name: rows[name] for name in JOBS if name in rows} | rows
    publish(published, list(rows.values()), {"packages": PACKAGES}, SEED, fingerprints, device=device)
    for row in rows.values():
        print({key: value for key, value in row.items() if key not in ("sides", "settings", "profile")})


@app.command()
def profile(only: Only = None, device: Device = "cpu") -> None:
    """Print where the processor time of sheaf goes in each job, without publishing it."""
    for name in map(_job, only or JOBS):
        seconds = profiled(JOBS[name], device)
        total = seconds["total"]
        print(f"{name}: {total:.2f} s of processor time, {seconds['elapsed']:.2f} s elapsed")
        for part, spent in seconds.items():
            if part not in ("total", "elapsed"):
                print(f"  {part:<28} {spent:7.3f} s {100 * spent / total:5.1f} %")


@app.command(name="grow", hidden=True)
def print_growth(edges: int, device: str) -> None:
    """Print one point of the growth, as JSON."""
    print(json.dumps(grow(edges, device)))


def _job(name: str) -> str:
    """Return a job's name from its name or number."""
    if name.isdigit() and 1 <= int(name) <= len(JOBS):
        return list(JOBS)[int(name) - 1]
    if name not in JOBS:
        raise typer.BadParameter(f"no job {name!r}; allowed: 1 to {len(JOBS)}, {', '.join(JOBS)}")
    return name


if __name__ == "__main__":
    app()
