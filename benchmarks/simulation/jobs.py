"""The jobs of the benchmark: models, data, number and size of the edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sheaf.core.recipe import Recipe
from sheaf.data.partitions.iid import IID
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import Experiment, FleetSettings
from sheaf.methods.fedavg import FedAvg
from sheaf.models.build import ModelSettings

SEED = 0

SIMULATORS = ("flower", "fedjax", "pfl")


@dataclass(frozen=True)
class Job:
    """The job that every side does."""

    model: str
    data: str
    edges: int
    images: int
    batch_size: int
    rounds: int
    repeats: int
    simulators: tuple[str, ...] = ()
    """Other simulators that do the job too."""
    one_by_one: int = 3
    """Repetitions of sheaf with one site after another."""
    threads: tuple[int, ...] = (1,)
    """Numbers of threads; the best for the bare loop, the last for sheaf with one site after another."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    tested: int | None = None
    """Test images; all by default."""

    def experiment(self, device: str, together: str = "auto", threads: int = 0) -> Experiment:
        """Return the job as an experiment."""
        recipe = Recipe(
            epochs=1,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=0.0,
            precision="float32",
        )
        return Experiment(
            seed=SEED,
            data=DataSettings(
                name=self.data, limit=self.edges * self.images, limit_test=self.tested, held_out=0.0
            ),
            partition=IID(edges=self.edges),
            model=ModelSettings(name=self.model),
            method=FedAvg(rounds=self.rounds, local=recipe),
            fleet=FleetSettings(together=together, threads=threads, device=device),  # type: ignore[arg-type]
        )


CNN = "benchmarks.simulation.jobs:small_cnn"
JOBS = {
    "100 edges, one hidden layer, MNIST": Job("mlp", "mnist", 100, 600, 10, 5, 5, SIMULATORS),
    "the same, 60 images an edge": Job("mlp", "mnist", 100, 60, 10, 5, 5, SIMULATORS),
    "the same, Adam, batches of 64": Job("mlp", "mnist", 100, 600, 64, 5, 5, optimizer="adam", lr=1e-3),
    "20 edges, small CNN, MNIST": Job(CNN, "mnist", 20, 600, 10, 5, 5),
    "10 edges, MobileNetV2, CIFAR-10": Job(
        "mobilenet_v2", "cifar10", 10, 1000, 32, 1, 5, one_by_one=1, threads=(2,), tested=500
    ),
}
"""The first is FedAvg's own: 100 clients of 600 images, batches of 10, plain SGD (McMahan et al. 2017, 3)."""


def small_cnn(num_classes: int, in_shape: tuple[int, int, int]) -> nn.Module:
    """Two convolutions of 8 and 16 channels."""
    return nn.Sequential(
        nn.Conv2d(in_shape[0], 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (in_shape[1] // 4) * (in_shape[2] // 4), num_classes),
    )
