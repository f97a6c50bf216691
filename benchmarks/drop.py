"""Find the cause of the paper's drop on MNIST: ECAvg's third experiment with different fine-tuning.

In the paper (Mih et al. 2023) the accuracy of the edges falls from 0.972 and 0.957 to 0.754 and 0.547 when
they take the cloud's model. The paper gives no optimizer, learning rate or epochs, and no initial weights.
Here the edges train with sheaf's defaults. The variables are the cloud's fine-tuning and the average: of
edges with common initial weights, of edges with separate ones, and of these after alignment.

Run: SHEAF_DATA=… python -m benchmarks.drop FOLDER
"""

from __future__ import annotations

import itertools
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.results import publish
from sheaf.core.recipe import Recipe
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import load_experiment
from sheaf.merges.rules.aligned import Aligned
from sheaf.runtime.result import Result

SEEDS = 3
FINETUNES = {
    "adam 1e-3, 5 epochs": Recipe(epochs=5),
    "adam 1e-3, 1 epoch": Recipe(epochs=1),
    "adam 1e-4, 1 epoch": Recipe(epochs=1, lr=1e-4),
    "adam 1e-5, 1 epoch": Recipe(epochs=1, lr=1e-5),
    "sgd 1e-2, 1 epoch": Recipe(epochs=1, optimizer="sgd", lr=1e-2),
    "sgd 1e-3, 1 epoch": Recipe(epochs=1, optimizer="sgd", lr=1e-3),
    "sgd 1e-4, 1 epoch": Recipe(epochs=1, optimizer="sgd", lr=1e-4),
}


STARTS: dict[str, dict[str, Any]] = {
    "": {},
    "own starts, ": {"own_start": True},
    "own starts, aligned, ": {"own_start": True, "merge": Aligned()},
}


def row(finetune: str, seed: int, result: Result) -> dict[str, Any]:
    """Return the accuracies at each stage, of the edges on own classes and of the cloud on all."""
    stages: dict[str, list[float]] = {}
    for measured in result.rows:
        stages.setdefault(measured.stage, []).append(measured.accuracy)
    means = {stage: statistics.mean(found) for stage, found in stages.items()}
    return {"finetune": finetune, "seed": seed, **means}


def main() -> None:
    """Run what is missing in FOLDER, and publish ``drop.json``."""
    folder, rows = Path(sys.argv[1]).resolve(), []
    base = load_experiment("ecavg-mnist")
    for (start, settings_of_it), (finetune, recipe) in itertools.product(STARTS.items(), FINETUNES.items()):
        name, method = start + finetune, replace(base.method, finetune=recipe, **settings_of_it)
        for seed in range(SEEDS):
            out = folder / f"{name}-{seed}".replace(" ", "_").replace(",", "")
            result = run_or_resume(replace(base, method=method, seed=seed), out)
            rows.append(row(name, seed, result))
    data, settings = result.provenance["data"], result.provenance["settings"]
    publish("drop", rows, settings, 0, data, ("finetune", "seed", "before update", "after update"))


if __name__ == "__main__":
    main()
