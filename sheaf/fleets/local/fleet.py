"""The in-process fleet: its sites are trained here, several at a time where that is faster."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from sheaf.core.atomic_io import sync, sync_soon
from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe
from sheaf.core.task import Progress, Task, Update
from sheaf.core.tensor_file import Blob, write_together
from sheaf.core.thread_pool import thread_pool
from sheaf.core.types import Params
from sheaf.fleets.local.scheduling import Manner, SiteGroup, group_sites
from sheaf.runtime.worker import Worker
from sheaf.training import loop
from sheaf.training.network import Network
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.vectorized import Stack

WRITERS = 16
"""How many sites' files are written side by side."""

ON_DISK = ("collect", "remember")
"""What a site does without computing, beside adopting."""


class LocalFleet:
    """Sites in this process.

    Args:
        workers: the sites, in the order in which sums will run.
        progress: told of every training step.
        together: how sites are trained, see ``engines.groups``; ``"auto"`` chooses.
    """

    def __init__(
        self, workers: Sequence[Worker], progress: Progress | None = None, together: Manner = "auto"
    ) -> None:
        self._workers = {worker.name: worker for worker in workers}
        if len(self._workers) != len(workers):
            raise ValueError("two sites have the same name")
        self._progress = progress
        self._together = together
        self._stacks = Stacks()

    def names(self) -> tuple[str, ...]:
        """The sites, in their order."""
        return tuple(self._workers)

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        """Has each named site do its task.

        Who trains in one group does not depend on what was answered before a run was stopped, as the order of
        a stack's sums does on them all. A site of the group that had answered trains once more, unheard.
        """
        together, alone = group_sites(self._workers, call or tasks, self._together)
        together = [group for group in together if any(name in tasks for name in group.names)]
        alone = [name for name in alone if name in tasks]
        if alone and all(tasks[name].kind == "adopt" for name in alone):
            yield from self._adopting(alone, tasks)
        elif all(tasks[name].kind in ON_DISK for name in alone):
            yield from thread_pool("writer", WRITERS).map(
                lambda name: self._workers[name].do(tasks[name]), alone
            )
        else:
            for name in alone:
                yield self._workers[name].do(tasks[name], self._progress)
        if together:
            yield from self._side_by_side(together, call or tasks, tasks)

    def _adopting(self, names: Sequence[str], tasks: Mapping[str, Task]) -> Iterator[Update]:
        """What many are given is written once, and has a name for each of them."""
        began = time.perf_counter()
        workers = [self._workers[name] for name in names]
        with PeakMemory(workers[0].prepare.device) as peak:
            written: dict[str, Blob] = {}
            for worker in workers:
                blob = tasks[worker.name].blob
                assert blob is not None
                held = worker.hold(tasks[worker.name], written.get(blob.sha256, blob), named=False)
                written.setdefault(blob.sha256, held)
            for folder in {worker.folder for worker in workers}:
                sync(folder)
        seconds = time.perf_counter() - began
        for worker in workers:
            yield worker.adopted(tasks[worker.name], seconds / len(workers), peak.bytes)

    def _side_by_side(
        self, todo: Sequence[SiteGroup], call: Mapping[str, Task], wanted: Mapping[str, Task]
    ) -> Iterator[Update]:
        """Trains a group on each core, or one on a GPU. What is done is written and yielded meanwhile."""
        threads, stopped = torch.get_num_threads(), threading.Event()
        device = self._workers[todo[0].names[0]].prepare.device
        lanes = 1 if device.type == "cuda" else threads
        running: deque[tuple[SiteGroup, Future[_Trained]]] = deque()
        left = deque(todo)
        torch.set_num_threads(1)  # the cores are taken: whoever journals meanwhile must not wait for both
        try:
            while left or running:
                while left and len(running) <= lanes:  # one waits, so that no thread does
                    group = left.popleft()
                    running.append(
                        (group, thread_pool("lane", lanes).submit(self._train, group, call, stopped))
                    )
                group, future = running[0]
                held, lost, seconds, peak = future.result()
                blobs = held.result()
                running.popleft()
                for name, blob, losses in zip(group.names, blobs, lost, strict=True):
                    if name in wanted:
                        worker = self._workers[name]
                        yield worker.trained(call[name], blob, losses, seconds / len(lost), peak)
        finally:
            stopped.set()
            for future in [future for _, future in running if not future.cancel()]:
                if future.exception() is None:  # once it has ended
                    wait([future.result()[0]])
            torch.set_num_threads(threads)

    def _train(self, group: SiteGroup, call: Mapping[str, Task], stopped: threading.Event) -> _Trained:
        """What each site holds, each one's losses, and seconds and peak memory of all."""
        workers = [self._workers[name] for name in group.names]
        task, network, prepare = call[group.names[0]], workers[0].network, workers[0].prepare
        assert task.recipe is not None

        def told(site: int, done: int, steps: int, loss: float, examples: int) -> None:
            if stopped.is_set():
                raise InterruptedError("the run was stopped")
            if self._progress is not None:
                self._progress(group.names[site], done, steps, loss, examples)

        began = time.perf_counter()
        with PeakMemory(prepare.device) as peak:
            opened: dict[str, Params] = {}
            jobs = [worker.job(call[worker.name], opened) for worker in workers]
            if group.stacked:
                with self._stacks.one(network, task.cut, task.recipe, len(jobs), prepare.device) as stack:
                    trained = stack.train(jobs, prepare, told)
            else:
                (job,), model = jobs, copy.deepcopy(network.of(task.cut))
                model.load_state_dict(job.start)
                losses = loop.train(
                    model, job.samples, task.recipe, prepare, job.seed, lambda *step: told(0, *step), False
                )
                trained = [({name: value.cpu() for name, value in model.state_dict().items()}, losses)]
        seconds = time.perf_counter() - began
        held = thread_pool("writer", WRITERS).submit(_hold, workers, call, [params for params, _ in trained])
        return held, [losses for _, losses in trained], seconds, peak.bytes


def _hold(workers: Sequence[Worker], call: Mapping[str, Task], states: Sequence[Params]) -> list[Blob]:
    """Each worker holds its state; all lie in one file, which has a name for each worker.

    Nobody who is heard waits for the disk: what they answer says when all is durable (``Blob.syncing``).
    """
    path = workers[0].folder / f"{workers[0].name}.together"
    written = write_together(path, dict(zip((worker.name for worker in workers), states, strict=True)))
    held = [worker.hold(call[worker.name], written[worker.name], named=False) for worker in workers]
    syncing = sync_soon(path, *{worker.folder for worker in workers})
    path.unlink()
    if not all(call[worker.name].reply for worker in workers):
        syncing.result()
    return [replace(blob, syncing=syncing) for blob in held]


class Stacks:
    """Stacks that are used again, as to record a network's step takes as long as many replays of it."""

    def __init__(self) -> None:
        self._idle: dict[Any, list[Stack]] = {}

    @contextmanager
    def one(
        self, network: Network, cut: Cut | None, recipe: Recipe, sites: int, device: torch.device
    ) -> Iterator[Stack]:
        """A stack of one's own, for a while. Those of another network, cut or recipe then go."""
        kind = network, cut, recipe
        self._idle = {which: idle for which, idle in self._idle.items() if which[0] == kind}
        idle = self._idle.setdefault((kind, sites), [])
        try:
            stack = idle.pop()
        except IndexError:
            stack = Stack(network.of(cut), sites, recipe, device)
        yield stack
        idle.append(stack)


_Trained = tuple[Future[list[Blob]], list[list[float]], float, int]
