"""Measure the accuracy of a head from statistics with differential privacy, against epsilon.

MNIST, two edges with five classes and 1,800 images each, one hidden layer. The edges train separately for
five epochs; the cloud averages their models and fits the classifier by LDA to their statistics, with each
epsilon. No image leaves an edge. Epsilon covers these statistics, not the trained models; see ``Privacy``.

Run: SHEAF_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.privacy FOLDER [SEEDS]
Finished runs in FOLDER are read. Needs the extra ``privacy``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.results import publish
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import Experiment, load_experiment

SEEDS = "0,1,2"
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 32.0, None)
"""Privacy budgets; None: statistics without noise."""

COLUMNS = ("epsilon", "seed", "average", "refitted")


def experiment(epsilon: float | None, seed: int) -> Experiment:
    """Return the experiment for a privacy budget."""
    private = "" if epsilon is None else f", privacy = {{ epsilon = {epsilon} }}"
    changes = (
        "data.limit=3600",
        "data.limit_test=2000",
        "fleet.threads=1",
        "method.retrain.epochs=0",
        "method.finetune=none",
        "method.share=none",
        f"method.refit={{ statistics = 'lda'{private} }}",
        f"seed={seed}",
    )
    return load_experiment("ecavg-mnist", changes)


def row(epsilon: float | None, seed: int, folder: Path) -> dict[str, Any]:
    """Return the accuracy of the average and of the refitted model on all classes."""
    result = run_or_resume(experiment(epsilon, seed), folder / f"{epsilon}-{seed}")
    accuracy = {each.stage: each.accuracy for each in result.rows if each.site == CLOUD}
    return {
        "epsilon": epsilon,
        "seed": seed,
        "average": accuracy["average"],
        "refitted": accuracy["refitted"],
        "images_sent": sum(cost.samples_sent or 0 for cost in result.cost.values()),
        "spent": result.cost["edge-1"].epsilon,
        "data": result.provenance["data"],
    }


def main(folder: Path, seeds: str = SEEDS) -> None:
    """Run every budget with each seed, and publish."""
    runs = [(epsilon, int(seed)) for seed in seeds.split(",") for epsilon in EPSILONS]
    rows = [row(epsilon, seed, folder) for epsilon, seed in runs]
    data = rows[0]["data"]
    kept = [{key: value for key, value in each.items() if key != "data"} for each in rows]
    publish("privacy", kept, {"epsilons": EPSILONS}, 0, data, COLUMNS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
