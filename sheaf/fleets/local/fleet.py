"""The in-process fleet: its sites train in this process, several at a time where that is faster."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from sheaf.core.coding import decoded_blob
from sheaf.core.recipe import Recipe
from sheaf.core.task import Progress, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.thread_pool import thread_pool
from sheaf.fleets.local.scheduling import Mode, SiteGroup, group_sites
from sheaf.fleets.processes.edge_training import EdgeProcesses
from sheaf.runtime.retraining import RetrainedBlob
from sheaf.runtime.site_coding import SiteCoding
from sheaf.runtime.training_job import recipe_of
from sheaf.runtime.worker import Outcome, Worker
from sheaf.runtime.worker_group import WRITERS, is_retrainable, train_together
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.lone_site import LoneSite, train_plainly
from sheaf.training.loop import Trained
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.preparation import Preparation
from sheaf.training.stack_pool import StackPool

DISK_ONLY = ("collect", "remember")
"""Kinds of tasks that compute nothing, beside adopting."""


class LocalFleet:
    """Sites in this process.

    Args:
        workers: the sites, in the order in which sums run.
        progress: called after training steps.
        together: how sites are trained, see ``fleets.local.scheduling``; ``"auto"`` chooses the fastest way.
        processes: processes that train groups of sites, this one included; None: only this one.

    Raises:
        ValueError: two sites have the same name.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        progress: Progress | None = None,
        together: Mode = "auto",
        processes: EdgeProcesses | None = None,
    ) -> None:
        self._workers = {worker.name: worker for worker in workers}
        if len(self._workers) != len(workers):
            raise ValueError("two sites have the same name")
        self._progress = progress
        self._together = together
        self._processes = processes
        self._coding = {
            worker.name: SiteCoding(worker.network, worker.folder, worker.name) for worker in workers
        }
        self._stacks = StackPool()
        self._lone_site = LoneSite()

    @property
    def workers(self) -> Mapping[str, Worker]:
        """The sites by name, in their order."""
        return self._workers

    def names(self) -> tuple[str, ...]:
        """Return the sites, in their order."""
        return tuple(self._workers)

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        """Execute each named site's task and yield the updates; see ``Fleet``.

        The groups that train together follow from ``call``, not from the tasks that a stopped run left open:
        the order of sums in a stack depends on all of its sites. A site of the group whose update is in the
        journal already trains again, and its update is dropped.
        """
        call = call or tasks
        received = {name: self._coding[name].hold(task) for name, task in tasks.items()}
        for update in self._run(received, _decoded(call)):
            yield self._coding[update.site].answer(tasks[update.site], update, len(call))

    def _run(self, tasks: Mapping[str, Task], call: Mapping[str, Task]) -> Iterator[Update]:
        """Execute tasks whose parameters are decoded."""
        self._train_missing(tasks)
        groups, alone = self._group(call)
        groups = [group for group in groups if any(name in tasks for name in group.names)]
        alone = [name for name in alone if name in tasks]
        if {tasks[name].kind for name in alone} <= {*DISK_ONLY}:
            writers = thread_pool("writer", WRITERS)
            yield from writers.map(lambda name: self._workers[name].do(tasks[name]), alone)
        else:
            for name in alone:
                yield self._do(self._workers[name], call)
        if groups:
            for update in self._train(groups, call):
                if update.site in tasks:
                    yield update

    def replay(self, tasks: Mapping[str, Task], trained: Callable[[str], Blob]) -> None:
        """Let the sites hold what they held after these tasks; see ``Fleet``."""
        for name, coded in tasks.items():
            task = self._coding[name].hold(coded)
            if is_retrainable(name, task):
                self._workers[name].store.hold(task.call, trained(name), replayed=True)
            elif task.kind == "adopt" and task.blob is not None:
                self._workers[name].store.hold(task.call, task.blob, replayed=True)

    def train_again(self, tasks: Mapping[str, Task]) -> dict[str, Blob]:
        """Return the models of train tasks; see ``Fleet``."""
        tasks = _decoded(tasks)
        groups, alone = self._group(tasks)
        repeatable = {name for name, task in tasks.items() if task.is_retrainable}
        groups = [group for group in groups if repeatable.issuperset(group.names)]
        models = [self._do(self._workers[name], tasks, again=True) for name in alone if name in repeatable]
        models += self._train(groups, tasks, again=True) if groups else []
        return {update.site: update.blob for update in models if update.blob is not None}

    def _group(self, call: Mapping[str, Task]) -> tuple[list[SiteGroup], list[str]]:
        """Return the groups that train side by side, and the sites that execute their tasks one by one."""
        groups, alone = group_sites(self._workers, call, self._together)
        if self._processes is not None:
            divided = [name for name in alone if _is_divisible(call[name])]
            groups += [SiteGroup((name,), stacked=False, alone=True) for name in divided]
            alone = [name for name in alone if name not in set(divided)]
        return groups, alone

    def _train_missing(self, tasks: Mapping[str, Task]) -> None:
        """Train the models again that these tasks need and that were lost with the memory of a stopped run.

        On this thread: a training thread that opened such a model would block on its own pool.
        """
        for name, task in tasks.items():
            held = self._workers[name].store.held(task.call) if task.blob is None else None
            if isinstance(held, RetrainedBlob):
                held.found()

    def _do(self, worker: Worker, tasks: Mapping[str, Task], again: bool = False) -> Update:
        """Execute one task by itself."""
        task = tasks[worker.name]
        if task.kind == "adopt" and task.blob is not None:  # held by reference: a resumed run replays it
            worker.store.hold(task.call, task.blob)
            return worker.update(task, Outcome(), 0.0, 0)
        if not (is_retrainable(worker.name, task) and _is_divisible(task)):
            return worker.do(task, self._progress)

        def train(
            jobs: Sequence[Job], recipe: Recipe, prepare: Preparation, progress: loop.Progress
        ) -> tuple[list[Trained], int]:
            train_one = train_plainly if self._together == "never" else self._lone_site
            with PeakMemory(prepare.device) as peak:
                trained = train_one(worker.network, task.cut, jobs[0], recipe, prepare, progress)
            own = {name: value.clone() for name, value in trained.params.items()}  # not the network's memory
            return [trained._replace(params=own)], peak.bytes

        (update,) = train_together([worker], tasks, train, self._progress or ignore, again).result()
        return update

    def _train(
        self, groups: Sequence[SiteGroup], tasks: Mapping[str, Task], again: bool = False
    ) -> Iterator[Update]:
        """Train a group on each core, or one at a time on a GPU, and yield the updates in their order.

        With several processes, each of them trains one group at a time.

        Models of finished groups are written meanwhile.
        """
        threads, stopped = torch.get_num_threads(), threading.Event()
        device = self._workers[groups[0].names[0]].prepare.device
        lanes = 1 if device.type == "cuda" else threads
        if self._processes is not None:
            lanes = self._processes.count
        running: deque[Future[Future[list[Update]]]] = deque()
        waiting = deque(groups)
        torch.set_num_threads(1)  # the lanes occupy the cores; the journal's work must not wait for both
        try:
            while waiting or running:
                while waiting and len(running) <= lanes:  # one more than there are lanes, so that none idles
                    group = waiting.popleft()
                    lane = thread_pool("lane", lanes)
                    running.append(lane.submit(self._train_group, group, tasks, stopped, again))
                yield from running[0].result().result()
                running.popleft()
        finally:
            stopped.set()
            if running and self._processes is not None:
                self._processes.kill()
            for future in [future for future in running if not future.cancel()]:
                if future.exception() is None:  # waits until the training has ended
                    wait([future.result()])
            torch.set_num_threads(threads)

    def _train_group(
        self, group: SiteGroup, tasks: Mapping[str, Task], stopped: threading.Event, again: bool
    ) -> Future[list[Update]]:
        def progress(site: str, *step: Any) -> None:
            if stopped.is_set():
                raise InterruptedError("the run was stopped")
            if self._progress is not None:
                self._progress(site, *step)

        workers = [self._workers[name] for name in group.names]
        task, device = tasks[group.names[0]], workers[0].prepare.device
        state_of = self._stacks.state(
            workers[0].network,
            task.cut,
            recipe_of(task),
            len(workers),
            device,
            stacked=group.stacked,
            global_draws=group.alone,
        )

        def train_here(*job: Any) -> tuple[list[Trained], int]:
            with PeakMemory(device) as peak, state_of as state:
                return loop.train(state, *job), peak.bytes

        train = train_here
        if self._processes is not None:
            train = partial(self._processes.train, train_here, group, task.cut)
        return train_together(workers, tasks, train, progress, again)


def _decoded(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return the tasks with decoded parameters."""
    return {
        name: task if task.coding is None else replace(task, blob=decoded_blob(task.blob))
        for name, task in tasks.items()
    }


def ignore(*step: object) -> None:
    """Report no progress."""


def _is_divisible(task: Task) -> bool:
    """Return whether the task is only training, which another process can do: without a statistic."""
    return task.kind == "train" and not (task.statistic and task.reply)
