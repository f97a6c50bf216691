"""One kind of task on several workers of one process: they adopt or train together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from sheaf.core.atomic_io import sync, sync_soon
from sheaf.core.recipe import Recipe
from sheaf.core.task import Progress, Task, Update
from sheaf.core.tensor_file import Blob, write_together
from sheaf.core.thread_pool import thread_pool
from sheaf.core.types import Params
from sheaf.runtime.worker import Outcome, Worker, recipe_of
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.loop import Trained
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.preparation import Preparation

WRITERS = 16
"""Threads that write the files of sites."""

TrainJobs = Callable[[Sequence[Job], Recipe, Preparation, loop.Progress], tuple[list[Trained], int]]
"""Trains jobs as ``loop.train`` does, and returns the results and the peak memory in bytes."""


def adopt_together(workers: Sequence[Worker], tasks: Mapping[str, Task]) -> Iterator[Update]:
    """Execute the workers' adopt tasks. A model of several workers is written once."""
    began = time.perf_counter()
    with PeakMemory(workers[0].prepare.device) as peak:
        written: dict[str, Blob] = {}
        for worker in workers:
            task = tasks[worker.name]
            assert task.blob is not None
            blob = written.get(task.blob.sha256, task.blob)
            written.setdefault(blob.sha256, worker.store.keep(task.call, blob, named=False))
        for folder in {worker.folder for worker in workers}:
            sync(folder)
    seconds = (time.perf_counter() - began) / len(workers)
    for worker in workers:
        yield worker.update(tasks[worker.name], Outcome(), seconds, peak.bytes)


def train_together(
    workers: Sequence[Worker], tasks: Mapping[str, Task], train: TrainJobs, progress: Progress
) -> Future[list[Update]]:
    """Execute the workers' train tasks, which are alike but for parameters, data and seed.

    Returns when the training is done. The models are written while the next group trains: the future's
    updates are in the order of the workers, and ``Blob.syncing`` says when their files are durable. Not for
    tasks with a statistic.

    Args:
        train: trains the jobs of as many sites.
        progress: called after training steps.

    Raises:
        DataError: a worker has nothing to train on.
    """
    recipe, prepare = recipe_of(tasks[workers[0].name]), workers[0].prepare
    began = time.perf_counter()
    opened: dict[str, Params] = {}
    jobs = [worker.job(tasks[worker.name], opened) for worker in workers]
    trained, peak = train(jobs, recipe, prepare, lambda job, *step: progress(workers[job].name, *step))
    seconds = (time.perf_counter() - began) / len(workers)

    def store() -> list[Update]:
        blobs = _store_together(workers, tasks, trained)
        updates = []
        for worker, blob, result in zip(workers, blobs, trained, strict=True):
            task = tasks[worker.name]
            outcome = Outcome(blob, {"losses": result.losses}, worker.cost_of(task))
            updates.append(worker.update(task, outcome, seconds, peak))
        return updates

    return thread_pool("writer", WRITERS).submit(store)


def _store_together(
    workers: Sequence[Worker], tasks: Mapping[str, Task], trained: Sequence[Trained]
) -> list[Blob]:
    """Store each worker's model. All lie in one file, which is linked under a name for each worker.

    Replies are yielded before fsync completes, unless a worker does not reply: nobody could then await it.
    """
    path = workers[0].folder / f"{workers[0].name}.together"
    states = {worker.name: result.params for worker, result in zip(workers, trained, strict=True)}
    written = write_together(path, states)
    stored = [
        worker.store.keep(tasks[worker.name].call, written[worker.name], named=False) for worker in workers
    ]
    syncing = sync_soon(path, *{worker.folder for worker in workers})
    path.unlink()
    if not all(tasks[worker.name].reply for worker in workers):
        syncing.result()
    return [replace(blob, syncing=syncing) for blob in stored]
