"""Measure the overhead of sheaf's training loop over a bare PyTorch loop on the same batches.

Both run in one process and alternate: the bare loop below, and one edge of sheaf with a complete train task
(decode the parameters, train, encode, write to disk). Both must end with the same bits. The first pair
warms up; it includes the work of an edge once per run, such as counting multiply-adds.

Run: SHEAF_DATA=… python -m benchmarks.overhead
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.results import publish
from sheaf.core.dataset import Dataset
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import seed_for
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.models.build import ModelSettings, build_model
from sheaf.models.memory_layout import to_layout
from sheaf.runtime.worker import Worker
from sheaf.training.network import Network

SEED = 0
JOBS = {
    # name: (model, data, images, epochs, pairs)
    "mlp/mnist": ("mlp", "mnist", 30_000, 5, 15),
    "mobilenet_v2/cifar10": ("mobilenet_v2", "cifar10", 5_000, 1, 9),
}


def bare(model: nn.Module, data: Dataset, recipe: Recipe) -> None:
    """Train with a hand-written loop."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if convolutional:
        to_layout(model, channels_last=True)
    optimizer = torch.optim.Adam(model.parameters(), recipe.lr, fused=True)
    mean = torch.tensor(data.mean).view(-1, 1, 1) * 255
    std = torch.tensor(data.std).view(-1, 1, 1) * 255
    draws = torch.Generator().manual_seed(SEED)
    torch.manual_seed(seed_for(SEED, "layers"))  # dropout
    model.train()
    images, labels = data.train.inputs, data.train.targets
    for _ in range(recipe.epochs):
        order = data.train.positions[torch.randperm(len(data.train), generator=draws)]
        for batch in torch.split(order, recipe.batch_size):
            x = (images[batch].float() - mean) / std
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def pair(job: str) -> list[tuple[float, float]]:
    """Return the seconds of (bare, sheaf) for each pair of a job."""
    model_name, data_name, images, epochs, pairs = JOBS[job]
    data = load_dataset(DataSettings(name=data_name, limit=images, limit_test=100))
    model = build_model(ModelSettings(name=model_name), len(data.classes), data.shape, SEED)
    recipe = Recipe(epochs=epochs, precision="float32")
    start = Blob.of(model.state_dict())
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        network = Network(copy.deepcopy(model), data.shape)
        edge = Worker("edge", network, data, data.train.select(torch.arange(0)), Path(folder))
        for number in track(range(pairs + 1), job):
            reference = copy.deepcopy(model)
            task = Task("train", number, SEED, start, recipe)
            took: dict[str, float] = {}
            trained: dict[str, Tensor] = {}
            for who in ("bare", "sheaf") if number % 2 else ("sheaf", "bare"):
                began = time.perf_counter()
                if who == "bare":
                    bare(reference, data, replace(recipe))
                else:
                    trained = dict(edge.do(task).params)
                took[who] = time.perf_counter() - began
            for name, value in reference.state_dict().items():
                assert torch.equal(value, trained[name]), f"{job}: {name} differs from the bare loop's"
            if number:  # the first pair warms up
                seconds.append((took["bare"], took["sheaf"]))
    return seconds


def main() -> None:
    """Measure every job, and publish ``overhead.json``."""
    rows, data = [], {}
    for job, (_, data_name, *_rest) in JOBS.items():
        measured = pair(job)
        bare_times, sheaf_times = zip(*measured, strict=True)
        ratios = sorted(sheaf / bare for bare, sheaf in measured)
        rows.append(
            {
                "name": job,
                "ratio": statistics.median(sheaf_times) / statistics.median(bare_times),
                "ratio_low": ratios[len(ratios) // 4],
                "ratio_high": ratios[-1 - len(ratios) // 4],
                "bare_s": statistics.median(bare_times),
                "sheaf_s": statistics.median(sheaf_times),
                "pairs": len(measured),
            }
        )
        data[data_name] = load_dataset(
            DataSettings(name=data_name, limit=JOBS[job][2], limit_test=100)
        ).fingerprint
    publish(
        "overhead",
        rows,
        {"jobs": {job: list(what) for job, what in JOBS.items()}},
        SEED,
        data,
        tuple(rows[0]),
    )


if __name__ == "__main__":
    main()
