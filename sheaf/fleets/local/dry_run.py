"""A fleet that replies without training: what a method would send and compute, known before a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from sheaf.core.recipe import Statistic
from sheaf.core.task import Cost, Task, Update, named_statistic
from sheaf.core.tensor_file import Blob
from sheaf.runtime.measured_logits import MeasuredLogits, count_recorded
from sheaf.runtime.site_coding import SiteCoding
from sheaf.runtime.worker import Worker
from sheaf.training.batches import batch_sizes, steps_of
from sheaf.training.statistics import blank

MEASURED = 0.1234567890123456
"""Stands for a measured number in the header of an answer: most have as many digits."""


class DryFleet:
    """Sites that execute every task except training and evaluation; see ``LocalFleet``.

    The method runs as it is, so this holds for any method: multiply-adds are exactly those of the epochs that
    are skipped, and bytes are those of the messages, except for the digits of measured numbers in the headers
    of answers.

    Args:
        workers: the sites, in their order.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = {worker.name: worker for worker in workers}
        self._coding = {
            worker.name: SiteCoding(worker.network, worker.folder, worker.name) for worker in workers
        }

    @property
    def workers(self) -> Mapping[str, Worker]:
        """The sites by name, in their order."""
        return self._workers

    def names(self) -> tuple[str, ...]:
        """Return the sites, in their order."""
        return tuple(self._workers)

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        """Reply to each task with the model that it brought or that the site holds."""
        for name, task in tasks.items():
            coding = self._coding[name]
            yield coding.answer(task, self._do(self._workers[name], coding.hold(task)), len(tasks))

    def _do(self, worker: Worker, task: Task) -> Update:
        if task.kind == "evaluate":
            return _evaluation(worker, task)
        if task.kind == "train" and task.recipe is not None:
            statistic = task.statistic and replace(task.statistic, examples=1)
            update = worker.do(replace(task, recipe=replace(task.recipe, epochs=0), statistic=statistic))
            batches = len(batch_sizes(worker.training_examples(task), task.recipe.batch_size))
            epochs = math.ceil(steps_of(task.recipe, worker.training_examples(task)) / max(1, batches))
            metrics = update.metrics | {"losses": [MEASURED] * epochs}
            return replace(update, metrics=metrics, cost=worker.cost_of(task))
        if task.kind == "choose":
            update, mixtures = worker.do(replace(task, mixtures=())), [0.0, *task.mixtures]
            measured = {"mixtures": mixtures, "accuracies": [MEASURED] * len(mixtures)}
            metrics = update.metrics | (measured if task.mixtures and len(worker.held_out) else {})
            return replace(update, metrics=metrics, cost=worker.cost_of(task))
        if task.kind in ("refit", "restat"):
            update = worker.do(replace(task, kind="collect"))
            model = Blob.of(update.params)  # without a statistic that the task brought
            return replace(update, kind=task.kind, blob=model, cost=worker.cost_of(task))
        if task.kind == "summarize" and task.statistic is not None:
            return _summary(worker, task, task.statistic)
        return worker.do(task)


def _evaluation(worker: Worker, task: Task) -> Update:
    """Return a perfect evaluation with as many recorded logits as a true one."""
    classes, cut = len(worker.data.classes), task.cut
    outputs = classes if cut is None or cut.classes is None else len(cut.classes)
    outputs += cut is not None and cut.other
    recorded = min(len(worker.data.test), count_recorded(worker.data.test, outputs))
    logits = torch.zeros(recorded, outputs)
    record = MeasuredLogits.of("0" * 64, "test", worker.prepare.device, logits)
    metrics: dict[str, Any] = {
        "confusion": torch.diag(worker.data.test.counts(classes)).tolist(),
        "loss": MEASURED,
        "measured": record.header(),
    }
    if len(worker.held_out):
        metrics["held_out"] = MEASURED
    counts = tuple(worker.data.train.counts(classes).tolist())
    return Update(worker.name, "evaluate", None, counts, metrics, Cost())


def _summary(worker: Worker, task: Task, statistic: Statistic) -> Update:
    """Return a statistic of zeros, with the site's true class counts."""
    counts = worker.data.train.counts(len(worker.data.classes))
    expected = blank(worker.network, task.cut, statistic)
    values = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in expected.items()}
    if "counts" in values:
        values["counts"] = counts.double()
    blob = Blob.of(named_statistic(statistic.kind, values))
    return Update(worker.name, task.kind, blob, tuple(counts.tolist()), {}, worker.cost_of(task))
