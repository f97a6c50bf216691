"""A fleet that replies without training: what a method would send and compute, known before a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from sheaf.core.recipe import Statistic
from sheaf.core.task import Cost, Task, Update, named_statistic
from sheaf.core.tensor_file import Blob
from sheaf.runtime.site_coding import SiteCoding
from sheaf.runtime.worker import Worker
from sheaf.training.statistics import blank


class DryFleet:
    """Sites that execute every task except training and evaluation; see ``LocalFleet``.

    The method runs as it is, so this holds for any method: multiply-adds are exactly those of the epochs that
    are skipped, and bytes are those of the messages, except for losses and seconds in their headers.

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
            classes = len(worker.data.classes)
            perfect = torch.diag(worker.data.test.counts(classes)).tolist()
            counts = tuple(worker.data.train.counts(classes).tolist())
            metrics = {"confusion": perfect, "loss": 0.0}
            return Update(worker.name, "evaluate", None, counts, metrics, Cost())
        if task.kind == "train" and task.recipe is not None:
            statistic = task.statistic and replace(task.statistic, examples=1)
            update = worker.do(replace(task, recipe=replace(task.recipe, epochs=0), statistic=statistic))
            return replace(update, cost=worker.cost_of(task))
        if task.kind == "choose":
            update = worker.do(replace(task, mixtures=()))
            return replace(update, cost=worker.cost_of(task))
        if task.kind in ("refit", "restat"):
            update = worker.do(replace(task, kind="collect"))
            model = Blob.of(update.params)  # without a statistic that the task brought
            return replace(update, kind=task.kind, blob=model, cost=worker.cost_of(task))
        if task.kind == "summarize" and task.statistic is not None:
            return _summary(worker, task, task.statistic)
        return worker.do(task)


def _summary(worker: Worker, task: Task, statistic: Statistic) -> Update:
    """Return a statistic of zeros, with the site's true class counts."""
    counts = worker.data.train.counts(len(worker.data.classes))
    expected = blank(worker.network, task.cut, statistic)
    values = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in expected.items()}
    if "counts" in values:
        values["counts"] = counts.double()
    blob = Blob.of(named_statistic(statistic.kind, values))
    return Update(worker.name, task.kind, blob, tuple(counts.tolist()), {}, worker.cost_of(task))
