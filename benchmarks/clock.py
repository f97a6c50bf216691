"""Measure seconds, bytes and joules of methods until they reach an accuracy, on ten unequal devices.

The devices are simulated (``fleet.devices``): seconds and joules are virtual, and do not depend on the
machine. Each has two classes. A method trains for all of its rounds; a row has what it had spent when the
cloud's model first reached the accuracy on all classes.

With the runs of the first seed, docs/pictures/timelines.svg is drawn.

Run: [SHEAF_DATA=…] python -m benchmarks.clock FOLDER [SEED,SEED… [METHOD…]]
Resumes interrupted runs. Published rows stay until their seed and method run again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.results import publish, published
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import load_experiment
from sheaf.report.pictures.timelines import draw_timelines
from sheaf.report.style import picture_style
from sheaf.runtime.result import Result

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "timelines.svg"

SEEDS = "0,1,2"
TARGET = 0.9
"""Accuracy of the cloud's model on all classes."""

DEVICES = (
    *("raspberry-pi-4+lte",) * 3,
    *("raspberry-pi-5+wifi",) * 2,
    *("jetson-nano+lte",) * 2,
    "jetson-xavier-nx+wifi",
    "jetson-orin-nano+ethernet",
    "laptop+wifi",
)
WIDTHS = (0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0)
"""Width of each device's sub-model, for methods that cut."""

RECIPE = '{ epochs = %d, batch_size = 32, optimizer = "sgd", lr = 0.05 }'

ECAVG = (
    'method={ name = "ecavg", rounds = 8 }',
    f"method.pretrain={RECIPE % 2}",
    f"method.retrain={RECIPE % 1}",
    "method.share={ fraction = 0.1 }",
)

METHODS = {
    "ecavg": (*ECAVG, f"method.finetune={RECIPE % 2}"),
    "ecavg, 5 epochs in the cloud": (*ECAVG, f"method.finetune={RECIPE % 5}"),
    "decoupled": (
        'method={ name = "decoupled" }',
        f"method.train={RECIPE % 10}",
        "method.share={ fraction = 0.1 }",
        f"method.finetune={RECIPE % 10}",
    ),
    "fedavg": ('method={ name = "fedavg", rounds = 200 }', f"method.local={RECIPE % 1}"),
    "heterofl": ('method={ name = "heterofl", rounds = 200 }', f"method.local={RECIPE % 1}"),
}
"""Method -> its settings."""

CUT = ("decoupled", "heterofl")
"""Methods whose devices hold sub-models."""

DRAWN = ("decoupled", "ecavg", "fedavg")
"""Methods in the picture."""

DATA = (
    "data={ name = 'mnist', limit = 10000, limit_test = 2000 }",
    f"partition={{ name = 'classes', edges = {[[n, (n + 1) % 10] for n in range(10)]} }}",
    "model={ name = 'mlp', options = { hidden = 512 } }",
)


def changes(method: str) -> list[str]:
    """Return the settings of a method's runs."""
    edges = ", ".join(f"edge-{n:02} = '{name}'" for n, name in enumerate(DEVICES, start=1))
    widths = ", ".join(f"edge-{n:02} = {width}" for n, width in enumerate(WIDTHS, start=1))
    own = [*DATA, *METHODS[method], f"fleet.devices.edges={{ {edges} }}", "fleet.devices.evaluation=false"]
    return [*own, f"fleet.widths={{ {widths} }}"] if method in CUT else own


def row_of(method: str, seed: int, result: Result) -> dict[str, Any]:
    """Return what a run had spent when the cloud's model reached the accuracy, or null."""
    assert result.time is not None
    best, reached = 0.0, None
    for row, spent in zip(result.rows, result.time.measured, strict=False):
        if row.site == CLOUD and not row.reference:
            best = max(best, row.accuracy)
            if row.accuracy >= TARGET and reached is None:
                reached = spent
    edges = [time for site, time in result.time.sites.items() if site != CLOUD]
    return {
        "method": method,
        "seed": seed,
        "target": TARGET,
        "best": best,
        "seconds": None if reached is None else reached.seconds,
        "bytes": None if reached is None else reached.bytes,
        "joules": None if reached is None else reached.joules,
        "idle": sum(time.idle for time in edges) / len(edges),
        "commit": result.provenance["commit"],
    }


def main(folder: Path, seeds: str = SEEDS, *methods: str) -> None:
    """Run the methods with each seed, and publish after each run."""
    before, _, data = published("clock")
    rows = {(row["method"], row["seed"]): row for row in before}
    for seed in map(int, seeds.split(",")):
        for method in methods or METHODS:
            experiment = load_experiment("ecavg-digits", [*changes(method), f"seed={seed}"])
            result = run_or_resume(experiment, folder / f"{method}-{seed}")
            data |= result.provenance["data"]
            rows[method, seed] = row_of(method, seed, result)
            settings = {name: changes(name) for name in METHODS}
            columns = ("method", "seed", "best", "seconds", "bytes", "joules", "idle")
            publish("clock", [rows[key] for key in sorted(rows)], settings, 0, data, columns)
    draw(folder, rows)


def draw(folder: Path, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Draw the timelines of the first seed, if its runs are there and have reached the accuracy."""
    seed = int(SEEDS[0])
    timelines = {}
    for method in DRAWN:
        seconds = rows.get((method, seed), {}).get("seconds")
        if seconds is not None and (folder / f"{method}-{seed}" / "result.json").exists():
            record = Result.read(folder / f"{method}-{seed}").time
            assert record is not None
            timelines[method] = (record, seconds)
    if len(timelines) == len(DRAWN):
        with picture_style():
            draw_timelines(timelines, TARGET).figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
