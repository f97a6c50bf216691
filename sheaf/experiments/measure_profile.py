"""Measure the profile of the machine that this runs on, for the model of an experiment."""

from __future__ import annotations

import platform
from dataclasses import replace
from datetime import date

import psutil
import torch

from sheaf.experiments.setup import ExperimentSetup
from sheaf.experiments.speed import measure_speed
from sheaf.profiles.profile import DeviceProfile, Precision, ProfileFile


def measure_profile(
    setup: ExperimentSetup, watts_idle: float | None = None, watts_busy: float | None = None
) -> ProfileFile:
    """Return the profile of this machine: measured training of the experiment's whole model, and its memory.

    Args:
        setup: the experiment.
        watts_idle: power of the idle machine, read from a meter; None: unknown.
        watts_busy: power while it trains, read from a meter; None: unknown.
    """
    recipe, cuda = setup.experiment.method.budget.recipe, setup.device.type == "cuda"
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if cuda else ("float32",)
    speeds = {}
    for precision in precisions:
        speed = measure_speed(setup, replace(recipe, precision=precision))
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
