"""A fleet that replies without training: what a method would send and compute, known before a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from sheaf.core.task import Cost, Task, Update
from sheaf.runtime.worker import Worker


class DryFleet:
    """Sites that execute every task except training and evaluation; see ``LocalFleet``.

    The method runs as it is, so this holds for any method: multiply-adds are exactly those of the epochs that
    are skipped, and bytes are those of the messages, except for losses and seconds in their headers.

    Args:
        workers: the sites, in their order.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = {worker.name: worker for worker in workers}

    def names(self) -> tuple[str, ...]:
        """Return the sites, in their order."""
        return tuple(self._workers)

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        """Reply to each task with the model that it brought or that the site holds."""
        for name, task in tasks.items():
            worker = self._workers[name]
            if task.kind == "evaluate":
                classes = len(worker.data.classes)
                perfect = torch.diag(worker.data.test.counts(classes)).tolist()
                counts = tuple(worker.data.train.counts(classes).tolist())
                yield Update(name, "evaluate", None, counts, {"confusion": perfect, "loss": 0.0}, Cost())
            elif task.kind == "train" and task.recipe is not None:
                statistic = task.statistic and replace(task.statistic, examples=1)
                update = worker.do(replace(task, recipe=replace(task.recipe, epochs=0), statistic=statistic))
                yield replace(update, cost=worker.cost_of(task))
            elif task.kind == "choose":
                update = worker.do(replace(task, mixtures=()))
                yield replace(update, cost=worker.cost_of(task))
            elif task.kind in ("refit", "restat"):
                update = worker.do(replace(task, kind="collect"))
                yield replace(update, kind=task.kind, cost=worker.cost_of(task))
            else:
                yield worker.do(task)
