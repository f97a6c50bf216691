"""A fleet that answers without training: what a method would ask, send and compute, before it is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from sheaf.core.task import Cost, Task, Update
from sheaf.runtime.worker import Worker


class DryFleet:
    """Sites that do every task but the training and the measuring; see ``LocalFleet``.

    The method runs as it is, so this holds for any method: multiply-adds are exactly those that the skipped
    epochs would have taken, and bytes those of the messages but for losses and seconds in their headers.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = {worker.name: worker for worker in workers}

    def names(self) -> tuple[str, ...]:
        """The sites, in their order."""
        return tuple(self._workers)

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        """Answers each task with what is at hand."""
        for name, task in tasks.items():
            worker = self._workers[name]
            if task.kind == "evaluate":
                classes = len(worker.data.classes)
                right = torch.diag(worker.data.test.counts(classes)).tolist()
                held = tuple(worker.data.train.counts(classes).tolist())
                yield Update(name, "evaluate", None, held, {"confusion": right, "loss": 0.0}, Cost())
            elif task.kind == "train" and task.recipe is not None:
                statistic = task.statistic and replace(task.statistic, examples=1)
                answer = worker.do(replace(task, recipe=replace(task.recipe, epochs=0), statistic=statistic))
                yield replace(answer, cost=worker.cost_of(task))
            elif task.kind == "choose":
                answer = worker.do(replace(task, mixtures=()))
                yield replace(answer, cost=worker.cost_of(task))
            elif task.kind in ("refit", "restat"):
                answer = worker.do(replace(task, kind="collect"))
                yield replace(answer, kind=task.kind, cost=worker.cost_of(task))
            else:
                yield worker.do(task)
