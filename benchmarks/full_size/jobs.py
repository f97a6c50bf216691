"""The jobs in order of worth, at full and at toy size.

Shipped experiments keep their recipes. ECAvg's edges hold out no images, except with EfficientNet-Lite0,
where ``ecavg_plus`` decides on a tenth that every method holds out. The decoupled devices are four of equal
width, each saving at least 11.8 times per image, and they pool all images. The protocols of
``benchmarks.rivals`` have all images of CIFAR-10, four times the channels (in C, images of 64x64), and the
settings that were tuned on the small size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.rivals import PROTOCOLS, Size, settings_of
from benchmarks.rivals import experiment as rival_experiment
from sheaf.core.recipe import Recipe
from sheaf.data.partitions.shards import Shards
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import Experiment, FleetSettings, load_experiment
from sheaf.methods.fedavg import FedAvg
from sheaf.models.build import ModelSettings

STAND_IN = "tinyimagenet32-a"
"""100 classes of Tiny ImageNet at 32x32: as many classes, images and pixels as CIFAR-100."""

WHOLE = ("data.held_out=0.0",)
SCRATCH = ("model.weights=",)
EQUAL_WIDTHS = ('method.cut={name="by_class", by="width", width=1.0}', "method.share.fraction=1.0")
CLIENTS = 100

RIVALS = Size(None, None, 20, channels=4)
RIVALS_PRE_TRAINED = Size(None, None, 6, side=64)
RIVALS_TOY = Size(200, 100, 4, side=32)


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: unique; its rows and its run folder have it.
        weight: relative to the other jobs', its part of the time.
        experiment: the run's settings.
        central: the name of the job that trains the same network centrally; empty: none.
        rival: its protocol and method in ``benchmarks.rivals``; None: a job of another kind.
    """

    name: str
    weight: float
    experiment: Experiment
    central: str = ""
    rival: tuple[str, str] | None = None


def all_jobs(device: str, seed: int, toy: bool) -> list[Job]:
    """Return the jobs in order of worth.

    Args:
        device: ``cpu`` or ``cuda``.
        seed: of every job.
        toy: with a few images and one epoch.
    """

    def job(name: str, weight: float, shipped: str, *changes: str, central: str = "") -> Job:
        return Job(name, weight, load_experiment(shipped, (*changes, f"fleet.device={device}")), central)

    hundred = _hundred_classes()
    stand_in = f"{hundred}, the stand-in for CIFAR-100" if hundred == STAND_IN else "CIFAR-100"
    alexnet, vgg, lite0 = "decoupled-cifar10-alexnet", "decoupled-cifar10", "ecavg-cifar10-lite0"
    jobs = [
        job("ECAvg 3: MLP, MNIST", 2, "ecavg-mnist", *WHOLE),
        job("ECAvg 1: EfficientNet-Lite0, CIFAR-10", 3, lite0),
        job(
            "ECAvg 1: MobileNetV2@32 from scratch, CIFAR-10",
            4,
            "ecavg-cifar10",
            *WHOLE,
            *SCRATCH,
            "model.name=mobilenet_v2@32",
        ),
        job(
            f"ECAvg 2: ResNet50@32 from scratch, {stand_in}",
            7,
            "ecavg-cifar100",
            *WHOLE,
            *SCRATCH,
            "model.name=resnet50@32",
            f"data.name={hundred}",
        ),
        job("AlexNet: central", 1, alexnet, *WHOLE, "method=central"),
        job("AlexNet: decoupled", 3, alexnet, *WHOLE, *EQUAL_WIDTHS, central="AlexNet: central"),
        job("VGG-11: central", 1, vgg, *WHOLE, "method=central"),
        job("VGG-11: decoupled", 3, vgg, *WHOLE, *EQUAL_WIDTHS, central="VGG-11: central"),
        Job(f"Simulation: {CLIENTS} clients, small CNN, CIFAR-10", 2, simulation(device)),
        *(
            job(f"ECAvg 1: EfficientNet-Lite0, CIFAR-10, {method}", 2, lite0, f"method={method}")
            for method in ("central", "ecavg_plus", "local", "fedavg")
        ),
        job(
            "AlexNet: decoupled, 100 epochs",
            9,
            alexnet,
            *WHOLE,
            *EQUAL_WIDTHS,
            "method.train.epochs=100",
            central="AlexNet: central",
        ),
    ]
    jobs = [replace(job, experiment=replace(job.experiment, seed=seed)) for job in jobs]
    jobs = [replace(job, experiment=shrunk(job.experiment)) for job in jobs] if toy else jobs
    return [*jobs, *rivals(device, seed, toy)]


def rivals(device: str, seed: int, toy: bool) -> Iterator[Job]:
    """Yield a job for each protocol and method of ``benchmarks.rivals``; arguments as of ``all_jobs``."""
    for protocol, (methods, _) in PROTOCOLS.items():
        size, weight = (RIVALS_PRE_TRAINED, 1.0) if protocol == "C" else (RIVALS, 0.25)
        for method in methods:
            tuned = settings_of(protocol, method)
            experiment = rival_experiment(protocol, method, seed, RIVALS_TOY if toy else size, tuned)
            fleet = replace(experiment.fleet, device=device)  # type: ignore[arg-type]
            experiment = replace(experiment, fleet=fleet)
            yield Job(f"Rivals {protocol}: {method}", weight, experiment, rival=(protocol, method))


def simulation(device: str) -> Experiment:
    """Return the simulation of BlazeFL's benchmark (arXiv:2604.03606).

    100 clients of 500 images, two shards each, 5 rounds of 5 epochs, mini-batches of 50, SGD 0.1, float32.
    """
    recipe = Recipe(epochs=5, batch_size=50, optimizer="sgd", lr=0.1, momentum=0.0, precision="float32")
    return Experiment(
        data=DataSettings(name="cifar10", held_out=0.0),
        partition=Shards(edges=CLIENTS, shards_per_edge=2),
        model=ModelSettings(name="benchmarks.full_size.networks:tutorial_cnn"),
        method=FedAvg(rounds=5, local=recipe),
        fleet=FleetSettings(device=device),  # type: ignore[arg-type]
    )


def shrunk(experiment: Experiment) -> Experiment:
    """Return the experiment with 200 images and one epoch, and with small images for the large networks."""
    sizes = {"mobilenet_v2@32": (16, 16), "resnet50@32": (16, 16), "efficientnet_lite0": (32, 32)}
    data = replace(experiment.data, limit=200, limit_test=100)
    if experiment.model.name in sizes:
        data = replace(data, size=sizes[experiment.model.name])
    method = experiment.method
    shorter: dict[str, Any] = {
        field.name: replace(recipe, epochs=1)
        for field in fields(method)
        if isinstance(recipe := getattr(method, field.name), Recipe)
    }
    if getattr(method, "rounds", 1) > 2:
        shorter["rounds"] = 2
    return replace(experiment, data=data, method=replace(method, **shorter))


def _hundred_classes() -> str:
    """Return the name of the data with 100 classes: CIFAR-100, or the stand-in if only that is at hand."""
    root = Path(os.environ.get("SHEAF_DATA", "."))
    return STAND_IN if (root / STAND_IN).is_dir() and not (root / "cifar100").is_dir() else "cifar100"
