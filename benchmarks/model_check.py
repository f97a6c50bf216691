"""Measure the time of the check of a user's model, beside ten training steps of a batch of two.

The seconds are the processor's, on one thread, so other programs on the machine change them little. The check
is measured without its cache.

Run: python -m benchmarks.model_check
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.results import publish
from sheaf.core import registry
from sheaf.models.memory_layout import to_layout, uses_channels_last
from sheaf.models.user_model import check_model

CLASSES, STEPS, REPEATS = 10, 10, 5
Shape = tuple[int, int, int]


def small_cnn() -> nn.Module:
    """Return two convolutions with batch norm, and two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(), nn.Linear(128, CLASSES)),
    )


def shipped(name: str, shape: Shape, variant: str | None = None) -> Callable[[], nn.Module]:
    """Return the builder of a shipped model, as if it were a user's."""
    builder = registry.load("models", name)
    return lambda: builder(num_classes=CLASSES, in_shape=shape, variant=variant)


COLOUR = (3, 32, 32)
JOBS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "mlp": (shipped("mlp", (1, 28, 28)), (1, 28, 28)),
    "two convolutions": (small_cnn, COLOUR),
    "mobilenet_v2@32": (shipped("mobilenet_v2", COLOUR, "32"), COLOUR),
    "resnet50@32": (shipped("resnet50", COLOUR, "32"), COLOUR),
}


def check(build: Callable[[], nn.Module], shape: Shape) -> float:
    """Return the seconds of a check."""
    model = build()
    began = time.process_time()
    check_model(model, "user's", CLASSES, shape, build)
    return time.process_time() - began


def steps(build: Callable[[], nn.Module], shape: Shape) -> float:
    """Return the seconds of ten steps, after two others."""
    model = build()
    if uses_channels_last(model):
        to_layout(model, channels_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, labels = torch.randn(2, *shape), torch.zeros(2, dtype=torch.int64)
    for step in range(STEPS + 2):
        if step == 2:
            began = time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.process_time() - began


def main() -> None:
    """Measure every model, and publish ``model_check.json``."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, (build, shape) in JOBS.items():
        check(build, shape)
        both = [(check(build, shape), steps(build, shape)) for _ in range(REPEATS)]
        checks, ten = zip(*both, strict=True)
        of_check, of_steps = statistics.median(checks), statistics.median(ten)
        medians = {"check": of_check, "steps": of_steps, "ratio": of_check / of_steps}
        rows.append({"name": name, **medians, "all_check": checks, "all_steps": ten})
    publish("model_check", rows, {}, 0, {}, ("name", "check", "steps", "ratio"))


if __name__ == "__main__":
    main()
