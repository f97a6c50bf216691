"""The accuracy of a model on the cloud's test data."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import prepare
from sheaf.export.trained_model import read_card
from sheaf.training.metrics import scores


def cloud_accuracy(experiment: Experiment, data: Path | None, file: Path) -> float | None:
    """Return the accuracy of the whole model in a weights file, or None if it has other classes or layers.

    Args:
        experiment: gives the test data.
        data: the directory in which named datasets are looked for first.
        file: weights with their card.

    Raises:
        SheafError: the test data or the file cannot be read.
    """
    card, model = read_card(file), experiment.model
    if card.model is None or (card.model.name, card.model.options) != (model.name, model.options):
        return None
    normalised = replace(experiment.data, mean=card.mean, std=card.std)
    setup = prepare(replace(experiment, data=normalised), data, {})
    if card.classes != setup.dataset.classes:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        update = setup.cloud(Path(scratch)).do(Task("evaluate", 1, 0, Blob.at(file)))
    return scores(torch.tensor(update.metrics["confusion"])).accuracy
