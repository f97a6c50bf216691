"""Measure the time and memory to trace and to cut a shipped model.

Each model has the width of its paper and the image size of its usual data, and runs in its own process.
Memory is the peak resident memory minus that before tracing, so the model's own parameters are not counted.

Run: python -m benchmarks.tracing
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

import psutil
import torch
from rich.progress import track

from benchmarks.results import publish
from sheaf.models.build import ModelSettings, build_model
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.prefix import Prefix
from sheaf.training.network import Network
from sheaf.training.peak_memory import PeakMemory

COLOUR, PHOTO = (3, 32, 32), (3, 224, 224)
JOBS = {
    # name: ((C, H, W), classes)
    "mlp": ((1, 28, 28), 10),
    "kws_cnn": ((1, 40, 101), 12),
    "alexnet": (PHOTO, 1000),
    "alexnet@32": (COLOUR, 10),
    "vgg11": (PHOTO, 1000),
    "vgg11@bn": (PHOTO, 1000),
    "vgg11@32": (COLOUR, 10),
    "vgg16": (PHOTO, 1000),
    "vgg16@bn": (PHOTO, 1000),
    "vgg16@32": (COLOUR, 10),
    "mobilenet_v2": (PHOTO, 1000),
    "mobilenet_v2@32": (COLOUR, 10),
    "resnet50": (PHOTO, 1000),
    "resnet50@32": (COLOUR, 10),
}
REPEATS = 3


def measure(name: str) -> dict[str, Any]:
    """Measure one trace and one cut of a quarter."""
    in_shape, classes = JOBS[name]
    module = build_model(ModelSettings(name=name), classes, in_shape, 0)
    weak = SiteNeeds("weak", tuple(range(classes)), 0.25)
    network, before = Network(module, in_shape), psutil.Process().memory_info().rss
    with PeakMemory(torch.device("cpu")) as peak:
        began = time.perf_counter()
        structure = network.structure
        traced = time.perf_counter()
        network.of(Prefix()(structure, [weak], 0)["weak"])
        cut = time.perf_counter()
    return {"traced": traced - began, "cut": cut - traced, "memory": peak.bytes - before}


def main() -> None:
    """Measure every model, and publish ``tracing.json``."""
    rows = []
    for name in track(JOBS, "models"):
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            found = [pool.apply(measure, (name,)) for _ in range(REPEATS)]
        of = {key: [each[key] for each in found] for key in found[0]}
        medians = {key: statistics.median(values) for key, values in of.items()}
        rows.append({"name": name, **medians, **{f"all_{key}": values for key, values in of.items()}})
    publish("tracing", rows, {}, 0, {}, ("name", "traced", "cut", "memory"))


if __name__ == "__main__":
    main()
