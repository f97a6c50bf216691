"""The in-process fleet: its sites are trained here, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sheaf.types import Progress, Task, Update
from sheaf.worker import Worker


class LocalFleet:
    """Sites in this process.

    Args:
        workers: the sites, in the order in which sums will run.
        progress: told of every training step.
    """

    def __init__(self, workers: Sequence[Worker], progress: Progress | None = None) -> None:
        self._workers = {worker.name: worker for worker in workers}
        if len(self._workers) != len(workers):
            raise ValueError("two sites have the same name")
        self._progress = progress

    def names(self) -> tuple[str, ...]:
        """The sites, in their order."""
        return tuple(self._workers)

    def run(self, tasks: Mapping[str, Task]) -> Iterator[Update]:
        """Has each named site do its task, one after another."""
        for name, task in tasks.items():
            yield self._workers[name].do(task, self._progress)
