"""The tasks that an experiment will send to the devices of a fleet, known before anything is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace

import torch

from sheaf.core.coding import decoded_blob
from sheaf.core.dataset import Samples
from sheaf.core.recipe import Share
from sheaf.core.task import Task, Update
from sheaf.experiments.activation_bytes import training_bytes
from sheaf.experiments.dry_run import estimate_cost
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.local.dry_run import DryFleet
from sheaf.fleets.remote.messages import PlannedTask

ROUNDS = 2
"""Rounds of the method that are run; later rounds send tasks of the same kinds and sizes."""

EXAMPLES = 2
"""Examples of each class that stand for a device's data, on which no task's limit depends.

If a fraction of them is shared, there are as many more.
"""

CODED_MODELS = 4
"""Further ones with a codec: the received models of two calls, and the encoding errors of two calls."""

MODELS = 4
"""Models that a device stores at a time: received, held, the one before, and remembered ones."""


@dataclass
class Demands:
    """The demands of an experiment on one device.

    Attributes:
        tasks: the different tasks.
        memory: bytes of parameters, gradients, optimizer state and activations in its largest training.
        disk: bytes of the models that it stores.
    """

    tasks: list[PlannedTask] = field(default_factory=list)
    memory: int = 0
    disk: int = 0


def demands_of(setup: ExperimentSetup, devices: Collection[str]) -> dict[str, Demands]:
    """Return the demands of an experiment on each of these devices, by running its method without training.

    Args:
        setup: with the class counts of the devices.
        devices: names of those that have data.

    Raises:
        SheafError: the method cannot run with these devices.
    """
    inputs = setup.dataset.test.inputs
    share = getattr(setup.experiment.method, "share", None)
    fraction = share.fraction if isinstance(share, Share) else 1.0
    examples = max(EXAMPLES, math.ceil(EXAMPLES / fraction))  # so that each device shares some
    few = {}
    for site in devices:
        labels = torch.unique(setup.edge_samples[site][0].labels).repeat_interleave(examples)
        zeros = torch.zeros((len(labels), *inputs.shape[1:]), dtype=inputs.dtype)
        train = Samples.of(zeros, labels)
        few[site] = train, train.select(torch.arange(0))
    experiment, method = setup.experiment, setup.experiment.method
    if any(each.name == "rounds" for each in fields(method)):
        method = replace(method, rounds=min(ROUNDS, method.rounds))
    short = replace(setup, experiment=replace(experiment, method=method), edge_samples=few)
    demands = {site: Demands() for site in devices}
    memory: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()

    def note(site: str, task: Task) -> None:
        header, own = task.header(), demands[site]
        sends = task.blob is not None and task.kind != "lend"
        size = task.blob.size if task.blob is not None and sends else 0
        key = json.dumps({**header, "call": 1, "seed": 0, "since": 0, "baseline": 0, "coding": None})
        stored = decoded_blob(task.blob) if sends else None
        models = MODELS if task.coding is None else MODELS + CODED_MODELS
        own.disk = max(own.disk, models * (0 if stored is None else stored.size))
        if (site, key) in seen:
            return
        seen.add((site, key))
        own.tasks.append(PlannedTask(task=header, size=size))
        if task.kind == "train" and task.recipe is not None:
            same = json.dumps([header["cut"], task.recipe.batch_size, task.recipe.optimizer])
            if same not in memory:
                memory[same] = training_bytes(setup.network, task.cut, task.recipe)
            own.memory = max(own.memory, memory[same])

    class Recorder(DryFleet):
        """A dry fleet that notes the tasks."""

        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for site, task in tasks.items():
                note(site, task)
            yield from super().run(tasks, call)

    estimate_cost(short, Recorder)
    return demands
