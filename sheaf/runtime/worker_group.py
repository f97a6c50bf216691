"""Training of several workers of one process together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from sheaf.core.atomic_io import sync_soon
from sheaf.core.available_memory import available_memory
from sheaf.core.lazy_blob import TensorBlob, origin_of, spill
from sheaf.core.recipe import Recipe
from sheaf.core.task import Progress, Task, Update
from sheaf.core.tensor_file import Blob, encoded_size, with_hashes, write_together
from sheaf.core.thread_pool import thread_pool
from sheaf.core.types import CLOUD, Params
from sheaf.merges.check import are_finite
from sheaf.runtime.training_job import recipe_of
from sheaf.runtime.worker import Outcome, Worker
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.loop import Trained
from sheaf.training.preparation import Preparation

WRITERS = 16
"""Threads that write the files of sites."""

WORTH_A_FILE = 30.0
"""Models that took this many times longer to train than they take to write are written to files."""

WRITE_SECONDS, WRITE_BYTES = 0.01, 200e6
"""The time of writing a model: seconds for each file, and bytes a second."""

IN_MEMORY, MOST_IN_MEMORY = 2**27, 2**29
"""Models of one call are kept in memory up to the first size together, in unnamed files beyond the second.

Between both they are kept in memory if they take at most an eighth of what is available: 1,000 models of
400 kB take 30 % less processor time there.
"""

TrainJobs = Callable[[Sequence[Job], Recipe, Preparation, loop.Progress], tuple[list[Trained], int]]
"""Trains jobs as ``loop.train`` does, and returns the results and the peak memory in bytes.

Nothing else modifies the tensors of the results.
"""


def is_retrainable(site: str, task: Task) -> bool:
    """Return whether a resumed run can train a site's model again; the cloud's models have files instead."""
    return task.is_retrainable and site != CLOUD


def train_together(
    workers: Sequence[Worker],
    tasks: Mapping[str, Task],
    train: TrainJobs,
    progress: Progress,
    again: bool = False,
) -> Future[list[Update]]:
    """Execute the workers' train tasks, which are alike but for parameters, data and seed.

    Returns when the training is done. A model that is cheaper to train again than to write stays in memory
    (``TensorBlob``). Other models are written while the next group trains: the future's updates are in the
    order of the workers, and ``Blob.syncing`` says when their files are durable. Not for tasks whose reply
    has a statistic.

    Args:
        workers: the sites.
        tasks: the tasks of the whole call.
        train: trains the jobs of as many sites.
        progress: called after training steps.
        again: train for the models only: the sites hold what they held, and the updates carry the models.

    Raises:
        DataError: a worker has nothing to train on.
    """
    recipe, prepare = recipe_of(tasks[workers[0].name]), workers[0].prepare
    began = time.perf_counter()
    opened: dict[str, tuple[Params, Params]] = {}
    jobs = [worker.job(tasks[worker.name], opened) for worker in workers]
    trained, peak = train(jobs, recipe, prepare, lambda job, *step: progress(workers[job].name, *step))
    seconds = (time.perf_counter() - began) / len(workers)

    def updates(blobs: Sequence[Blob]) -> list[Update]:
        return [
            worker.update(
                replace(tasks[worker.name], reply=True) if again else tasks[worker.name],
                Outcome(blob, {"losses": result.losses}, worker.cost_of(tasks[worker.name])),
                seconds,
                peak,
            )
            for worker, blob, result in zip(workers, blobs, trained, strict=True)
        ]

    size = encoded_size(trained[0].params)
    quick = seconds < WORTH_A_FILE * (WRITE_SECONDS + size / WRITE_BYTES)
    retrainable = all(is_retrainable(worker.name, tasks[worker.name]) for worker in workers)
    if not again and not (retrainable and quick):
        return thread_pool("writer", WRITERS).submit(
            lambda: updates(_store_together(workers, tasks, trained))
        )
    blobs = _in_memory(workers, tasks, trained, size)
    if not again:
        for worker, blob in zip(workers, blobs, strict=True):
            worker.store.hold(tasks[worker.name].call, blob)
    finished: Future[list[Update]] = Future()
    finished.set_result(updates(blobs))
    return finished


def _in_memory(
    workers: Sequence[Worker], tasks: Mapping[str, Task], trained: Sequence[Trained], size: int
) -> list[Blob]:
    """Return each worker's model without a file of its own."""
    states: dict[str, Params] = {
        worker.name: result.params for worker, result in zip(workers, trained, strict=True)
    }
    if not _fits_in_memory(size * len(tasks)):
        states |= spill(workers[0].folder / f"{workers[0].name}.spilled", states)
    return [
        TensorBlob(params, size, origin=origin_of(tasks[name].blob), finite=are_finite(params))
        for name, params in states.items()
    ]  # checked here, where they are in the core's cache


def _fits_in_memory(size: int) -> bool:
    return size <= IN_MEMORY or size <= min(MOST_IN_MEMORY, available_memory() // 8)


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
    return [with_hashes(replace(blob, syncing=syncing), blob) for blob in stored]
