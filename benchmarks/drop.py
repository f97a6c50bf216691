"""Find the cause of the paper's drop on MNIST: ECAvg's third experiment with networks of different widths.

In the paper (Mih et al. 2023) the accuracy of the edges falls from 0.972 and 0.957 to 0.754 and 0.547 when
they take the cloud's model, and the cloud reaches 0.642 from averaged and 0.794 from initial weights. The
paper gives neither the width of the hidden layer, nor optimizer, learning rate, epochs and initial weights.
The variables are the width, whether the edges start from common or from own weights, the learning rate of the
edges, and the cloud's fine-tuning. The edges do not retrain here, as the paper has no row for it.

Run: SHEAF_DATA=… python -m benchmarks.drop FOLDER
Finished runs in FOLDER are read, so that an interrupted benchmark continues. With a seed after FOLDER, only
the runs of that seed are executed and nothing is published: so several processes can share the work.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.results import publish
from sheaf.core.recipe import Recipe
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.runtime.result import Result

SEEDS = 3
WIDTHS = 2, 3, 4, 6, 8, 16, 32, 128
STARTS = {"common": False, "own": True}
EDGE_RATES = 1e-3, 1e-2
FINETUNES = {
    "sgd 1e-2": Recipe(epochs=1, optimizer="sgd", lr=1e-2, momentum=0.0),
    "sgd 1e-2, momentum 0.9": Recipe(epochs=1, optimizer="sgd", lr=1e-2),
    "adam 1e-3": Recipe(epochs=1),
}


def variant(hidden: int, start: str, edge_rate: float, finetune: str, seed: int) -> Experiment:
    """Return the experiment with these settings."""
    base = load_experiment("ecavg-mnist", ("fleet.threads=1",))
    method = replace(
        base.method,
        pretrain=replace(base.method.pretrain, lr=edge_rate),
        finetune=FINETUNES[finetune],
        retrain=replace(base.method.retrain, epochs=0),
        own_start=STARTS[start],
    )
    return replace(base, method=method, model=replace(base.model, options={"hidden": hidden}), seed=seed)


def accuracies(result: Result) -> dict[str, float]:
    """Return the six accuracies of the paper's table, and the average's before fine-tuning.

    An edge is measured on its own classes, the cloud on all.
    """
    found: dict[str, float] = {}
    for row in result.rows:
        if row.stage != "after retraining":
            found[f"{row.site}, {row.stage}"] = row.accuracy
    return found


def main() -> None:
    """Run the missing variants in FOLDER, and publish ``drop.json``."""
    folder, rows = Path(sys.argv[1]).resolve(), []
    only = [int(seed) for seed in sys.argv[2:]]
    for seed in only or range(SEEDS):
        for hidden, start, edge_rate, finetune in itertools.product(WIDTHS, STARTS, EDGE_RATES, FINETUNES):
            names: dict[str, Any] = {
                "hidden": hidden,
                "start": start,
                "edges": f"adam {edge_rate:g}",
                "finetune": finetune,
                "seed": seed,
            }
            out = folder / "-".join(str(value).replace(" ", "_") for value in names.values())
            result = run_or_resume(variant(hidden, start, edge_rate, finetune, seed), out)
            rows.append(names | accuracies(result))
    if only:
        return
    data, settings = result.provenance["data"], result.provenance["settings"]
    publish("drop", rows, settings, 0, data, ("hidden", "start", "edges", "finetune", "seed"))


if __name__ == "__main__":
    main()
