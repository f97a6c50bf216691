"""Measure what the cloud makes of merged models: a head from statistics, fine-tuning, distillation.

MNIST, 6,000 images, a small CNN with batch norm. Either two edges with five classes each train the whole
network, and their models are averaged (``ecavg``); or five edges with two classes each train sub-models
behind a common first convolution, which are bound (``decoupled``). From the same merged model the cloud then
takes each step alone:

- a head from statistics of the edges: LDA, ridge regression or Gaussians; no image leaves an edge.
- fine-tuning on a pool of a quarter of the images.
- distillation on that pool, without its labels, from the edges' models before the merge (FedDF).
- distillation on as many unlabelled images of the cloud: MNIST images that no edge has, or CIFAR-10 images in
  grey; no image leaves an edge.

The row *teachers* is the accuracy of the mean of the edges' logits itself, an ensemble, no model.

The steps that train have the same multiply-adds in the cloud, the teachers' forward passes included: the
number of mini-batches is chosen for it. Each step's learning rate is the best of four on seed 100.

The rows with ``network`` are of the costs of a forward pass of a bound model, dense and by its blocks.

Run: SHEAF_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.statistics_head FOLDER [SEEDS]
Finished rows in FOLDER are read, so that an interrupted benchmark continues.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.results import publish
from sheaf.api.sites import Sites
from sheaf.core.cut import Cut
from sheaf.core.recipe import FromStatistics, Recipe, Share, Statistic
from sheaf.core.task import Update
from sheaf.core.tensor_file import encoded_size
from sheaf.core.types import CLOUD, Params
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.merges.rules.mean import Mean
from sheaf.models.build import ModelSettings, build_model
from sheaf.runtime.teachers import mean_logits
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.training.losses.distillation import Distillation
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation

SEEDS = "0,1,2"
IMAGES, POOLED, EPOCHS = 6000, 0.25, 10
"""Training images, the fraction that is pooled, and epochs on the pool, which set the cloud's work."""

RATE_SEED, RATES = 100, (3e-4, 1e-3, 3e-3, 1e-2)
"""The seed and the learning rates among which the best is chosen for each step that trains."""

EDGES = {"ecavg": 2, "decoupled": 5}
TRAIN = Recipe(epochs=5)
HEADS = tuple(FromStatistics(statistics=name) for name in ("lda", "ridge", "gaussian"))
TRAINED = ("fine-tuning", "distillation, pool", "distillation, MNIST", "distillation, CIFAR-10")
NETWORKS = {
    "kws_cnn": (1, 28, 28),
    "vgg11": (3, 32, 32),
    "alexnet": (3, 64, 64),
    "mobilenet_v2": (3, 64, 64),
}
"""Networks whose bound forward pass is counted -> the shape of an image."""

COLUMNS = ("method", "step", "seed", "cloud", "cloud_macs", "edge_macs", "images_sent")


def setup_of(method: str, seed: int, public: str = "") -> ExperimentSetup:
    """Return the data and the network of a method, with the cloud's own images."""
    changes = [
        f"data.limit={IMAGES}",
        "data.limit_test=2000",
        "data.held_out=0",
        f"partition.edges={EDGES[method]}",
        "model={ name = 'kws_cnn', options = { width = 16 } }",
        "fleet.threads=1",
        f"seed={seed}",
    ]
    if public:
        limit = round(POOLED * IMAGES)
        changes += [f"cloud.public={{ name = '{public}', limit = {limit} }}"]
        changes += ["method.finetune.loss=distillation"]
    return prepare(load_experiment("ecavg-mnist", changes))


def write_unused_images(folder: Path) -> None:
    """Write as PNG files twice as many MNIST training images as the pool has, none of which an edge has."""
    used, everything = (
        load_dataset(DataSettings(name="mnist", limit=limit, limit_test=10)).train
        for limit in (IMAGES, IMAGES + round(2 * POOLED * IMAGES))
    )
    taken = {image.numpy().tobytes() for image in used.inputs[used.positions]}
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(everything.inputs[everything.positions]):
        if image.numpy().tobytes() not in taken:
            Image.fromarray(image[0].numpy()).save(folder / f"{number:05}.png")


def merged(method: str, sites: Sites) -> tuple[Params, list[Update], dict[str, Any] | None]:
    """Return the merged model, the edges' models, and their cuts."""
    theta, fleet, _, _ = sites
    if method == "ecavg":
        local = fleet.train(theta, TRAIN)
        return fleet.merge(Mean(), theta, local), local, None
    cuts = fleet.cut(ByClass(stem=1))
    local = fleet.train(theta, TRAIN, cuts=cuts)
    return fleet.average(theta, local, by_examples=False, unheld="zero"), local, cuts


def equal_work(setup: ExperimentSetup, teacher_macs: int, lr: float) -> Recipe:
    """Return a distillation whose work, with the teachers', is that of fine-tuning, to a mini-batch."""
    epochs = EPOCHS - teacher_macs / setup.network.macs().train
    whole = math.ceil(epochs)
    return Recipe(epochs=whole, work=epochs / whole, lr=lr, loss=Distillation())


def measure(method: str, seed: int, folder: Path, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Yield a row for each step of a method.

    Args:
        rates: step that trains -> its learning rate.
    """
    setup = setup_of(method, seed)
    with Sites(setup) as sites:
        fleet, cloud = sites.fleet, sites.cloud
        theta, local, cuts = merged(method, sites)

        def row(step: str, own: Sites, compute: Callable[[], Params]) -> dict[str, Any]:
            before = {site: replace(cost) for site, cost in own.cost.items()}
            accuracy = accuracy_of(own, compute())
            spent = {site: cost.train_macs - before[site].train_macs for site, cost in own.cost.items()}
            sent = sum((cost.samples_sent or 0) for site, cost in own.cost.items() if site != CLOUD)
            row = {"method": method, "step": step, "seed": seed, "cloud": accuracy}
            row |= {"cloud_macs": spent.pop(CLOUD), "edge_macs": sum(spent.values()), "images_sent": sent}
            return row | {"lr": rates.get(step)}

        def fit(how: FromStatistics) -> Params:
            moments = fleet.statistics(theta, Statistic("features"), bound=cuts)
            return sites.cloud.refit(theta, how, moments)

        yield row("none", sites, lambda: theta)
        for how in HEADS if seed != RATE_SEED else ():
            yield row(f"head, {how.statistics}", sites, partial(fit, how))
        of = [None if cuts is None else cuts[update.site] for update in local]
        yield {
            "method": method,
            "step": "teachers",
            "seed": seed,
            "cloud": teachers_accuracy(setup, of, local),
        }
        teacher_macs = sum(setup.network.macs(cut).forward for cut in of)
        cloud.pool(fleet.share(Share(fraction=POOLED)))
        recipes = {step: equal_work(setup, teacher_macs, rate) for step, rate in rates.items()}
        recipes["fine-tuning"] = Recipe(epochs=EPOCHS, lr=rates["fine-tuning"])
        for step in TRAINED[:2]:
            yield row(step, sites, partial(cloud.train, theta, recipes[step], teachers=local, cuts=cuts))
        for step, public in zip(TRAINED[2:], (str(folder / "unused"), "cifar10"), strict=True):
            with Sites(setup_of(method, seed, public)) as own:
                yield row(
                    step, own, partial(own.cloud.train, theta, recipes[step], teachers=local, cuts=cuts)
                )


def teachers_accuracy(setup: ExperimentSetup, of: Sequence[Cut | None], local: Sequence[Update]) -> float:
    """Return the accuracy of the mean of the edges' logits on the test images of all classes."""
    data = setup.dataset
    prepare = Preparation(data.mean, data.std, setup.device)
    teachers = ((cut, update.params) for cut, update in zip(of, local, strict=True))
    logits = mean_logits(setup.network, teachers, data.test, prepare, len(data.classes))
    return float((logits.argmax(1) == data.test.labels).float().mean())


def accuracy_of(sites: Sites, theta: Params) -> float:
    """Return the accuracy of a model on the test images of all classes."""
    (update,) = sites.cloud.evaluate(theta)
    confusion = torch.tensor(update.metrics["confusion"])
    return float(confusion.diag().sum() / confusion.sum())


def best_rates(method: str, folder: Path) -> dict[str, float]:
    """Return step -> the learning rate with the best accuracy on a seed of its own."""
    found: dict[str, tuple[float, float]] = {}
    for rate in RATES:
        for row in measure(method, RATE_SEED, folder, dict.fromkeys(TRAINED, rate)):
            if row["step"] in TRAINED:
                found[row["step"]] = max(found.get(row["step"], (0.0, 0.0)), (row["cloud"], rate))
    return {step: rate for step, (_, rate) in found.items()}


def costs() -> Iterator[dict[str, Any]]:
    """Yield the cost of a bound model's forward pass, with G devices of disjoint classes."""
    for name, shape in NETWORKS.items():
        network = Network(build_model(ModelSettings(name=name), 10, shape, 0), shape)
        for groups in (2, 5, 10):
            each = 10 // groups
            needs = [SiteNeeds(str(n), tuple(range(n * each, (n + 1) * each))) for n in range(groups)]
            blocks = network.blocks(ByClass()(network.structure, needs, 0).values())
            yield {
                "network": name,
                "groups": groups,
                "dense_macs": network.macs().forward,
                "block_macs": network.macs(None, blocks).forward,
                "dense_bytes": encoded_size(network.shapes(None)),
                "block_bytes": encoded_size(network.shapes(None, blocks)),
            }


def kept(file: Path, compute: Callable[[], Any]) -> Any:
    """Return the content of a file, which is computed first if it does not exist."""
    if not file.exists():
        content = json.dumps(compute())
        file.write_text(content)
    return json.loads(file.read_text())


def main(folder: Path, seeds: str = SEEDS) -> None:
    """Measure what is missing in FOLDER; publish if the seeds are the default ones."""
    folder = folder.resolve()
    if not (folder / "unused").exists():
        write_unused_images(folder / "unused")
    rows = list[dict[str, Any]]()
    for method in EDGES:
        rates = kept(folder / f"rates-{method}.json", partial(best_rates, method, folder))
        for seed in map(int, seeds.split(",")):
            file = folder / f"{method}-{seed}.json"
            rows += kept(file, partial(list, measure(method, seed, folder, rates)))
            print(method, seed, {row["step"]: round(row["cloud"], 4) for row in rows[-8:]}, flush=True)
    if seeds == SEEDS:
        setup = setup_of("ecavg", 0, "cifar10")
        settings = {"images": IMAGES, "pooled": POOLED, "epochs": EPOCHS, "rates": RATES}
        rows += kept(folder / "costs.json", partial(list, costs()))
        publish("statistics_head", rows, settings, 0, setup.fingerprints)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
