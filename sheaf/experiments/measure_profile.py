"""Measure the profile of the machine that this runs on, for the model of an experiment."""

from __future__ import annotations

import math
import platform
import tempfile
import time
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path

import psutil
import torch

from sheaf.core.recipe import Recipe
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.experiments.setup import ExperimentSetup
from sheaf.models.checkpoints import load_state
from sheaf.profiles.profile import DeviceProfile, Precision, ProfileFile

SECONDS = 10.0
"""Seconds of training that are measured, at least: a device is slower in the long run than in a few steps."""

STEPS = 16
"""Training steps of a measured epoch."""


def measure_profile(
    setup: ExperimentSetup, watts_idle: float | None = None, watts_busy: float | None = None
) -> ProfileFile:
    """Return the profile of this machine: measured training of the experiment's whole model, and its memory.

    Takes ``SECONDS`` for each precision, and longer if ``STEPS`` training steps take longer.

    Args:
        setup: the experiment.
        watts_idle: power of the idle machine, read from a meter; None: unknown.
        watts_busy: power while it trains, read from a meter; None: unknown.
    """
    recipe, cuda = setup.experiment.method.budget.recipe, setup.device.type == "cuda"
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if cuda else ("float32",)
    speeds = {}
    for precision in precisions:
        speed = sustained_speed(setup, replace(recipe, precision=precision))
        speeds[precision] = float(f"{speed:.4g}")
    memory = psutil.virtual_memory().total
    if cuda:
        memory = torch.cuda.get_device_properties(setup.device).total_memory
    machine = platform.node() or "this machine"
    model = setup.experiment.model.name
    return ProfileFile(
        title=f"{machine}, measured on {date.today()}",
        device=DeviceProfile(
            macs_per_second=speeds, memory=float(memory), watts_idle=watts_idle, watts_busy=watts_busy
        ),
        sources={
            "macs_per_second": f"Measured by sheaf profile: training {model} with mini-batches of "
            f"{recipe.batch_size} on {setup.device.type} ({platform.machine()}, {torch.get_num_threads()} "
            "threads). Another model reaches another speed.",
            "memory": "Total memory of the processor that trains.",
        }
        | ({} if watts_idle is None else {"watts_idle": "Given to sheaf profile."})
        | ({} if watts_busy is None else {"watts_busy": "Given to sheaf profile."}),
    )


def sustained_speed(setup: ExperimentSetup, recipe: Recipe) -> float:
    """Return the multiply-adds per second with which a device trains the whole model for ``SECONDS``.

    One edge executes train tasks as a device does: by itself, with its model stored. The first task is not
    measured: it also allocates memory and prepares the processor's kernels.
    """
    start, threads = setup.theta, torch.get_num_threads()
    site, (train, held_out) = max(setup.edge_samples.items(), key=lambda each: len(each[1][0]))
    few = train.select(torch.arange(min(len(train), STEPS * recipe.batch_size)))
    calls = count(1)

    with tempfile.TemporaryDirectory() as scratch:
        (worker,) = replace(setup, edge_samples={site: (few, held_out)}).edges(Path(scratch))

        def train_for(epochs: int) -> tuple[float, float]:
            """Return the seconds and the multiply-adds of a task."""
            task = Task("train", next(calls), 0, Blob.of(start), replace(recipe, epochs=epochs), reply=False)
            began = time.perf_counter()
            update = worker.do(task)
            return time.perf_counter() - began, update.cost.train_macs

        torch.set_num_threads(setup.experiment.fleet.threads or threads)
        try:
            train_for(1)
            seconds, macs = train_for(1)
            if seconds < SECONDS:
                rest = train_for(math.ceil(SECONDS / seconds) - 1)
                seconds, macs = seconds + rest[0], macs + rest[1]
            return macs / seconds
        finally:
            torch.set_num_threads(threads)
            load_state(setup.network.model, start)
