"""When does taking part pay? The gain of an edge by its images, the split, the initial weights and the edges.

ECAvg and ``ecavg_plus`` against each edge alone (``local``) at the same edge work, with EfficientNet-Lite0 on
CIFAR-10 at 32x32. An edge has N images on average and takes at least ``STEPS`` mini-batches in each phase,
within 3 and 30 epochs. Disjoint: two edges have five classes each; ten edges have two shards each, of one or
two classes.

Run: SHEAF_DATA=… python -m benchmarks.taking_part FOLDER
     SHEAF_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.taking_part FOLDER SEED [IMAGES …]
Finished runs in FOLDER are read, so that an interrupted benchmark continues. With a seed, only its runs are
executed (of these images an edge), and nothing is published: so several processes can share the work. Without
one, the finished runs are published, and nothing is executed; published rows of other runs stay.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import publish, published
from sheaf.core.errors import PartitionError
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.runtime.result import Result, Row

SEEDS = 3
EDGES = 2, 10
IMAGES = 25, 100, 400, 1600, 5000
SPLITS = "disjoint", "dirichlet 0.1", "dirichlet 1", "iid"
WEIGHTS = "imagenet", "random"
METHODS = "local", "ecavg", "ecavg_plus"
RUN = "edges", "images", "split", "weights", "method", "seed"
"""The columns that identify a run."""

BATCH, STEPS = 32, 50


def experiment(edges: int, images: int, split: str, weights: str, method: str, seed: int) -> Experiment:
    """Return the experiment of one run."""
    name, _, alpha = split.partition(" ")
    disjoint = "classes" if edges == 2 else "shards"
    partition = f'name = "{disjoint if name == "disjoint" else name}", edges = {edges}'
    if alpha:
        partition += f", alpha = {alpha}"
    phases = {"pretrain": images, "finetune": images * edges, "retrain": images}
    recipe = f'batch_size = {BATCH}, lr = 1e-3, schedule = "onecycle", augment = ["flip"]'
    return load_experiment(
        "ecavg-cifar10-lite0",
        (
            f"seed={seed}",
            "data.size=[32, 32]",
            f"data.limit={edges * images}",
            "data.limit_test=1000",
            f"partition={{{partition}}}",
            f"model.weights={'imagenet' if weights == 'imagenet' else ''}",
            *(f"method.{phase}={{epochs = {_epochs(count)}, {recipe}}}" for phase, count in phases.items()),
            "method.reference=false",
        ),
    ).with_method(method)


def _epochs(images: int) -> int:
    """Return the epochs of a phase over this number of images."""
    return min(30, max(3, math.ceil(STEPS * BATCH / images)))


def variants(seeds: range, sizes: tuple[int, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the settings and the folder's name of each run, the cheap ones first."""
    for seed, images, edges, weights, split, method in itertools.product(
        seeds, sizes, EDGES, WEIGHTS, SPLITS, METHODS
    ):
        named = {"edges": edges, "images": images, "split": split, "weights": weights, "method": method}
        yield (
            named | {"seed": seed},
            "-".join(str(part).replace(" ", "_") for part in (*named.values(), seed)),
        )


def accuracies(result: Result) -> dict[str, Any]:
    """Return each edge's final accuracy on its own classes and on all, and its images."""
    rows: list[Row] = [row for site in result.split if (row := result.final(site)) is not None]
    return {
        "own": [row.accuracy for row in rows],
        "all": [row.accuracy_all for row in rows],
        "images_of_edges": [sum(counts) for counts in result.split.values()],
    }


def main() -> None:
    """Run the missing variants of a seed, or publish ``taking_part.json``."""
    folder = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        seed, sizes = int(sys.argv[2]), tuple(map(int, sys.argv[3:])) or IMAGES
        for named, name in variants(range(seed, seed + 1), sizes):
            try:
                run_or_resume(experiment(**named), folder / name)
            except PartitionError as error:  # 0.1 leaves an edge of few images empty
                print(f"{name}: {error}", flush=True)
        return
    before, _, _ = published("taking_part")
    found = {tuple(row[key] for key in RUN): row for row in before}
    result, rows = None, []
    for named, name in variants(range(SEEDS), IMAGES):
        run = tuple(named[key] for key in RUN)
        if (folder / name / "result.json").exists():
            result = Result.read(folder / name)
            found[run] = named | accuracies(result) | {"commit": result.provenance["commit"]}
        if run in found:
            rows.append(found[run])
    if result is None:
        sys.exit(f"{folder} holds no finished run; run: python -m benchmarks.taking_part {folder} 0")
    publish("taking_part", rows, result.provenance["settings"], 0, result.provenance["data"])


if __name__ == "__main__":
    main()
