"""Cure the paper's drop on MNIST: the remedies of ``ecavg_plus`` where it appears, at four hidden units.

The setting of ``benchmarks.drop`` with four units: edges with Adam 1e-3 for five epochs, the cloud with SGD
1e-2 for one epoch, common or own initial weights. Each variant adds one remedy to ECAvg; the last adds all.
Central training of the same network on all images, for the same number of epochs, is the bound that no remedy
can pass: four units must separate ten classes.

Run: SHEAF_DATA=… python -m benchmarks.remedies FOLDER
Finished runs in FOLDER are read, so that an interrupted benchmark continues. With a seed after FOLDER, only
the runs of that seed are executed and nothing is published: so several processes can share the work.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.drop import SEEDS, STARTS, variant
from benchmarks.results import publish
from sheaf.core.recipe import Recipe, Ridge
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import Experiment
from sheaf.merges.rules.aligned import Aligned
from sheaf.merges.rules.regmean import Regmean
from sheaf.methods.central import Central
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.runtime.result import Result

HIDDEN, RETRAIN = 4, 5
NONE: dict[str, Any] = {"restat": False, "refit": "none", "mixtures": ()}
GUARD = ECAvgPlus().mixtures
REMEDIES: dict[str, dict[str, Any]] = {
    "ecavg": {},
    "cloud trains 5 epochs": {"finetune": 5},
    "refit by ridge": {"refit": Ridge()},
    "refit by training": {"refit": Recipe(epochs=2)},
    "regmean": {"merge": Regmean()},
    "aligned": {"merge": Aligned()},
    "guard": {"mixtures": GUARD},
    "all": {"finetune": 5, "refit": Recipe(epochs=2), "merge": Regmean(), "mixtures": GUARD},
}


def remedied(name: str, start: str, seed: int) -> Experiment:
    """Return the experiment with one remedy, or central training."""
    base = variant(HIDDEN, start, 1e-3, "sgd 1e-2", seed)
    own = base.method
    if name == "central":
        return replace(base, method=Central(train=replace(own.pretrain, epochs=2 * RETRAIN + 1)))
    settings = NONE | REMEDIES[name]
    finetune = replace(own.finetune, epochs=settings.pop("finetune", 1))
    method = ECAvgPlus(
        pretrain=own.pretrain,
        finetune=finetune,
        retrain=replace(own.retrain, epochs=RETRAIN),
        own_start=own.own_start,
        **settings,
    )
    return replace(base, method=method)


def accuracies(result: Result) -> dict[str, float]:
    """Return the mean accuracy of the edges by stage, on their own and on all classes, and the cloud's."""
    found: dict[str, float] = {}
    for stage in dict.fromkeys(row.stage for row in result.rows):
        edges = [row for row in result.rows if row.stage == stage and row.site != CLOUD]
        if edges:
            found[stage] = fmean(row.accuracy for row in edges)
            found[f"{stage}, worst"] = min(row.accuracy for row in edges)
            found[f"{stage}, all classes"] = fmean(row.accuracy_all or 0.0 for row in edges)
        else:
            found[f"cloud, {stage}"] = next(row.accuracy for row in result.rows if row.stage == stage)
    return found


def main() -> None:
    """Run the missing variants in FOLDER, and publish ``remedies.json``."""
    folder, rows = Path(sys.argv[1]).resolve(), []
    only = [int(seed) for seed in sys.argv[2:]]
    for seed in only or range(SEEDS):
        for start, name in itertools.product(STARTS, ("central", *REMEDIES)):
            out = folder / f"{start}-{name.replace(' ', '_')}-{seed}"
            result = run_or_resume(remedied(name, start, seed), out)
            names = {"hidden": HIDDEN, "start": start, "remedy": name, "seed": seed}
            rows.append(names | accuracies(result))
    if only:
        return
    data, settings = result.provenance["data"], result.provenance["settings"]
    publish("remedies", rows, settings, 0, data, ("hidden", "start", "remedy", "seed"))


if __name__ == "__main__":
    main()
