"""A job as other simulators' environments read it: with numpy, and without sheaf.

``simulators`` writes the files into the folder ``$JOB``; the reply goes to the file ``$REPLY``.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PARAMETERS = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


@dataclass(frozen=True)
class SideJob:
    """Settings, images, split and initial weights.

    Attributes:
        settings: optimizer, lr, batch_size, rounds and the edges' numbers of images.
        x: (N, features) float32, normalised; of training images.
        y: (N,) int64 labels.
        x_test: of test images.
        y_test: of test images.
        parts: each edge's positions in ``x``.
        weights: name -> initial value of the network with one hidden layer, as PyTorch orients it.
    """

    settings: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    parts: list[np.ndarray]
    weights: dict[str, np.ndarray]


@functools.cache
def job() -> SideJob:
    """Return the job; every process maps the same files."""
    folder = Path(os.environ["JOB"])
    settings = json.loads((folder / "job.json").read_text())

    def load(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="c")

    x, y, x_test, y_test = map(load, ("x", "y", "x_test", "y_test"))
    parts = np.split(np.array(load("positions")), np.cumsum(settings["edges"])[:-1])
    weights = {name: np.array(load(name)) for name in PARAMETERS}
    return SideJob(settings, x, y, x_test, y_test, parts, weights)


def reply(seconds: float, with_start: float, accuracy: float, rounds: int) -> None:
    """Write the result: seconds as the package defines them, and those of the whole process."""
    content = {"seconds": seconds, "with_start": with_start, "accuracy": accuracy, "rounds": rounds}
    Path(os.environ["REPLY"]).write_text(json.dumps(content))


def network() -> Any:
    """Return the network as a module of PyTorch, with the initial weights."""
    from collections import OrderedDict

    import torch
    from torch import nn

    weights = {name: torch.from_numpy(value) for name, value in job().weights.items()}
    (hidden, features), (classes, _) = weights["fc1.weight"].shape, weights["fc2.weight"].shape
    layers = OrderedDict(fc1=nn.Linear(features, hidden), relu=nn.ReLU(True), fc2=nn.Linear(hidden, classes))
    model = nn.Sequential(layers)
    model.load_state_dict(weights)
    return model
