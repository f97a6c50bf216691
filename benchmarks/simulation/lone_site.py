"""Training of a site by itself, such as the cloud's: recorded and plain steps take turns, a job at a time."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from sheaf.core.recipe import Recipe
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.models.build import ModelSettings, build_model
from sheaf.training.batches import Job
from sheaf.training.lone_site import LEAST_STEPS, LoneSite, train_plainly
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation, pick_device

REPEATS = 11

EPOCHS = {LEAST_STEPS: 2, 1000: 40}
"""Steps of a job, of 25 an epoch -> epochs."""


def trained_alone() -> dict[str, Any]:
    """Return the row: milliseconds of processor time of jobs, with plain steps and with recorded ones.

    On one thread, as in the default experiment.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    dataset = load_dataset(DataSettings(name="digits", limit=800))
    shape, classes = dataset.shape, len(dataset.classes)
    network = Network(build_model(ModelSettings(name="mlp"), classes, shape, 0), shape)
    network.traits()  # determined before a run trains
    prepare = Preparation(dataset.mean, dataset.std, pick_device("cpu"))
    start = {name: value.clone() for name, value in network.model.state_dict().items()}
    job, jobs = Job(start, dataset.train, 0), {}
    for steps, epochs in EPOCHS.items():
        recipe = Recipe(epochs=epochs, batch_size=32)
        times: dict[str, list[float]] = {"plain": [], "recorded": []}
        for _ in range(REPEATS):
            for way, train in (("plain", train_plainly), ("recorded", LoneSite())):
                began = time.process_time()
                train(network, None, job, recipe, prepare, None)
                times[way].append(1e3 * (time.process_time() - began))
        medians = {way: statistics.median(each) for way, each in times.items()}
        quartiles = {way: statistics.quantiles(each) for way, each in times.items()}
        jobs[str(steps)] = {"quartiles_ms": quartiles, "gain": medians["plain"] / medians["recorded"]}
    torch.set_num_threads(before)
    return {"job": "a site by itself", "by_steps": jobs}
