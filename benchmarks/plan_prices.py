"""Measure the accuracy that lower settings of some devices cost, by which ``sheaf plan`` orders them.

Ten edges have two classes each, and four of them a lower setting: a fraction of the work, of the width, or of
the samples that they send. Accuracy is that of the cloud's final model on all classes.

Run: SHEAF_DATA=… python -m benchmarks.plan_prices FOLDER [SEED,SEED…]
Takes one processor minute a seed. Finished runs in FOLDER are read: an interrupted benchmark continues.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.results import publish
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import load_experiment

SEEDS = "0,1,2"
FRACTIONS = (1.0, 1 / 4, 1 / 16)
LOWERED = 4
"""Edges with the lower setting."""

RECIPE = '{ epochs = %d, batch_size = 32, optimizer = "sgd", lr = 0.05 }'
SHARE = 0.5
"""Fraction of its samples that an edge sends at most."""

METHODS: dict[str, tuple[str, ...]] = {
    "fedavg": ('method={ name = "fedavg", rounds = 30 }', f"method.local={RECIPE % 1}"),
    "heterofl": ('method={ name = "heterofl", rounds = 30 }', f"method.local={RECIPE % 1}"),
    "ecavg": (
        'method={ name = "ecavg", rounds = 2, reference = false }',
        f"method.pretrain={RECIPE % 3}",
        f"method.finetune={RECIPE % 3}",
        f"method.retrain={RECIPE % 3}",
        f"method.share.fraction={SHARE}",
    ),
    "decoupled": (
        'method={ name = "decoupled" }',
        f"method.train={RECIPE % 10}",
        f"method.finetune={RECIPE % 3}",
        f"method.share={{ fraction = {SHARE} }}",
    ),
}
KINDS = {
    "fedavg": ("work",),
    "heterofl": ("work", "widths"),
    "ecavg": ("work", "shares"),
    "decoupled": ("work", "widths", "shares"),
}
"""Method -> the settings that it has, of ``[fleet]``."""

DATA = (
    "data={ name = 'mnist', limit = 6000, limit_test = 2000 }",
    f"partition={{ name = 'classes', edges = {[[n, (n + 1) % 10] for n in range(10)]} }}",
    "model={ name = 'mlp', options = { hidden = 128 } }",
    "fleet.threads=1",
)


def changes(method: str, kind: str, fraction: float) -> list[str]:
    """Return the settings of a run."""
    own = {"work": 1.0, "shares": SHARE, "widths": 0.1 if method == "decoupled" else 1.0}[kind]
    values = {f"edge-{n:02}": own * (fraction if n <= LOWERED else 1.0) for n in range(1, 11)}
    table = ", ".join(f"{site} = {value}" for site, value in values.items())
    settings = [*DATA, *METHODS[method], f"fleet.{kind}={{ {table} }}"]
    if (method, kind) == ("decoupled", "widths"):  # the blocks of the others stay
        width = sum(values.values())
        settings.append(f'method.cut={{ name = "by_class", by = "width", width = {min(1.0, width)} }}')
    return settings


def main(folder: Path, seeds: str = SEEDS) -> None:
    """Run the missing variants in FOLDER, and publish ``plan_prices.json``."""
    rows: list[dict[str, Any]] = []
    for seed in map(int, seeds.split(",")):
        for method, kinds in KINDS.items():
            for kind in kinds:
                for fraction in FRACTIONS:
                    experiment = load_experiment(
                        "ecavg-digits", [*changes(method, kind, fraction), f"seed={seed}"]
                    )
                    result = run_or_resume(experiment, folder / f"{method}-{kind}-{fraction:g}-{seed}")
                    accuracy = [row.accuracy for row in result.rows if row.site == CLOUD][-1]
                    rows.append(
                        {
                            "method": method,
                            "setting": kind,
                            "fraction": fraction,
                            "seed": seed,
                            "accuracy": accuracy,
                        }
                    )
    settings = {method: [*DATA, *own] for method, own in METHODS.items()}
    columns = ("method", "setting", "fraction", "seed", "accuracy")
    publish("plan_prices", rows, settings, 0, result.provenance["data"], columns)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
