"""Preparation of a train task: its examples, start parameters and constants of the loss."""

from __future__ import annotations

import torch

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import Recipe
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.runtime.edge_tensors import split
from sheaf.training.batches import Job
from sheaf.training.optimizer_state import SLOTS
from sheaf.training.step import distils


def recipe_of(task: Task) -> Recipe:
    """Return the recipe of a task that needs one."""
    if task.recipe is None:
        raise ValueError(f"a {task.kind} task needs a recipe")
    return task.recipe


def job_of(
    site: str, task: Task, samples: Samples, blob: Blob, opened: dict[str, tuple[Params, Params]]
) -> Job:
    """Return the training of a train task.

    Args:
        site: the site's name, for messages.
        task: the train task.
        samples: the examples that it trains on.
        blob: the parameters from which it starts, with the constants of the loss.
        opened: key of a blob -> its content: decodes the parameters that several sites start from once.

    Raises:
        DataError: the recipe's loss needs a teacher, and the task has none.
    """
    if blob.key not in opened:
        opened[blob.key] = split(blob.open())
    start, constants = opened[blob.key]
    if task.continues and task.blob is not None:
        constants = split(task.blob.open())[1]
    if "teacher" in constants:
        samples = _numbered(samples)
    elif task.recipe is not None and distils(task.recipe):
        raise DataError(
            f"{site} has no teacher, which loss = 'distillation' needs: only finetune of ecavg, "
            "ecavg_plus and decoupled can have this loss; set another loss for the other recipes"
        )
    return Job(start, samples, task.seed, constants, _keeps_optimizer(task))


def _keeps_optimizer(task: Task) -> bool:
    """Return whether the answer carries the state of the optimizer."""
    return task.reply and task.statistic is not None and task.statistic.kind in SLOTS


def _numbered(samples: Samples) -> Samples:
    """Return the N samples with labels 0 to N - 1, by which a loss finds an example's constants."""
    targets = torch.zeros_like(samples.targets)
    targets[samples.positions] = torch.arange(len(samples))
    return Samples(samples.inputs, targets, samples.positions)
