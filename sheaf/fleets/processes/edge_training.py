"""Training of a group of edges by another process of the run, which gets jobs and returns parameters.

The other process holds the data set and the network, and nothing of a site: models, journal and costs are
with the process that executes the run. So any process can train any group.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from sheaf.core import errors
from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import SheafError, first_line
from sheaf.core.recipe import Recipe
from sheaf.core.settings import parse, plain
from sheaf.fleets.local.scheduling import SiteGroup
from sheaf.fleets.processes.group import Processes, ProcessLost, torch_threads
from sheaf.fleets.processes.messages import Message, prefixed, send, with_prefix
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.loop import Progress, Trained
from sheaf.training.network import Network
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.preparation import Preparation
from sheaf.training.stack_pool import StackPool

logger = logging.getLogger("sheaf")

PROGRESS_SECONDS = 0.2
"""The time between two reports of a job's steps."""


def train_elsewhere(
    processes: Processes,
    rank: int,
    jobs: Sequence[Job],
    recipe: Recipe,
    cut: Cut | None,
    *,
    stacked: bool,
    threads: int,
    dataset: Dataset,
    progress: Progress,
) -> tuple[list[Trained], int]:
    """Train jobs in process ``rank``; return the results and the peak memory of that process, in bytes.

    Args:
        processes: the processes of the run.
        rank: one that trains nothing else now.
        jobs: of one group.
        recipe: of all jobs.
        cut: the sub-model of all jobs; None: the whole model.
        stacked: train them in a stack.
        threads: the number of threads of torch.
        dataset: the data set that the other process holds too.
        progress: called after training steps.

    Raises:
        ProcessLost: the process has ended. The jobs can be given to another one.
        SheafError: the training failed.
    """
    tensors: dict[str, Tensor] = {}
    starts: dict[int, int] = {}  # identity of start parameters -> their number
    described = []
    for number, job in enumerate(jobs):
        if id(job.start) not in starts:
            starts[id(job.start)] = len(starts)
            tensors |= prefixed(f"start {starts[id(job.start)]}", job.start)
        tensors |= prefixed(f"samples {number}", _to_tensors(job.samples, dataset))
        tensors |= prefixed(f"constants {number}", job.constants)
        described.append({"start": starts[id(job.start)], "seed": job.seed})
    header = {
        "jobs": described,
        "recipe": plain(recipe),
        "cut": None if cut is None else cut.header(),
        "stacked": stacked,
        "threads": threads,
    }
    processes.send(rank, Message("train edges", header, tensors))
    try:
        while (message := processes.receive(rank)).kind == "steps":
            progress(*message.header["step"])
    except InterruptedError:
        processes.lost.add(rank)  # its next messages belong to these jobs
        raise
    if message.kind == "failed":
        kind: type[Exception] = getattr(errors, message.header["type"], RuntimeError)
        raise kind(message.header["message"])
    trained = [
        Trained(with_prefix(f"params {number}", message.tensors), losses)
        for number, losses in enumerate(message.header["losses"])
    ]
    return trained, message.header["peak_memory_bytes"]


class EdgeProcesses:
    """The processes of a run that train groups of edges, this one included. Each trains one at a time.

    Args:
        processes: the processes of the run.
        dataset: the data set that all of them hold.
        note: receives a line for the user when a process has ended.
    """

    def __init__(
        self, processes: Processes, dataset: Dataset, note: Callable[[str], None] = logger.info
    ) -> None:
        self._processes = processes
        self._dataset = dataset
        self._note = note
        self._killed = False
        self._free: SimpleQueue[int] = SimpleQueue()
        self.count = processes.sizes.fleet
        for rank in set(range(self.count)) - processes.lost:
            self._free.put(rank)

    def train(
        self,
        here: Callable[..., tuple[list[Trained], int]],
        group: SiteGroup,
        cut: Cut | None,
        jobs: Sequence[Job],
        recipe: Recipe,
        prepare: Preparation,
        progress: Progress,
    ) -> tuple[list[Trained], int]:
        """Train a group in a free process; block until there is one. See ``worker_group.TrainJobs``.

        The group of a process that ends meanwhile is given to another one.

        Args:
            here: trains jobs in this process.
            group: of the jobs.
            cut: the sub-model of all jobs; None: the whole model.
            jobs: the training of each site.
            recipe: of all jobs.
            prepare: normalises inputs.
            progress: called after training steps.
        """
        threads = self._processes.threads if group.alone else 1
        while True:
            rank = self._free.get()
            try:
                if rank == 0:
                    with torch_threads(threads):
                        return here(jobs, recipe, prepare, progress)
                return train_elsewhere(
                    self._processes,
                    rank,
                    jobs,
                    recipe,
                    cut,
                    stacked=group.stacked,
                    threads=threads,
                    dataset=self._dataset,
                    progress=progress,
                )
            except ProcessLost as error:
                if self._killed:
                    raise
                self._note(f"{error}; its edges train in the other processes")
            finally:
                if rank not in self._processes.lost:
                    self._free.put(rank)

    def kill(self) -> None:
        """Kill the other processes, so that no call of ``train`` blocks on one."""
        self._killed = True
        self._processes.kill()


class EdgeTrainer:
    """Trains the groups of edges that the process of rank 0 sends.

    Args:
        network: the whole model.
        dataset: the data set from which the jobs select.
        prepare: normalises its inputs.
    """

    def __init__(self, network: Network, dataset: Dataset, prepare: Preparation) -> None:
        self._network = network
        self._dataset = dataset
        self._prepare = prepare
        self._stacks = StackPool()

    def execute(self, message: Message) -> None:
        """Train the jobs of a message of ``train_elsewhere`` and send the reply."""
        header = message.header
        torch.set_num_threads(header["threads"])
        recipe = parse(Recipe, header["recipe"])
        cut = None if header["cut"] is None else Cut.of(header["cut"])
        starts: dict[int, dict[str, Tensor]] = {}
        jobs = []
        for number, job in enumerate(header["jobs"]):
            if job["start"] not in starts:
                starts[job["start"]] = with_prefix(f"start {job['start']}", message.tensors)
            samples = _to_samples(with_prefix(f"samples {number}", message.tensors), self._dataset)
            constants = with_prefix(f"constants {number}", message.tensors)
            jobs.append(Job(starts[job["start"]], samples, job["seed"], constants))
        device = self._prepare.device
        state_of = self._stacks.state(
            self._network, cut, recipe, len(jobs), device, stacked=header["stacked"]
        )
        try:
            with PeakMemory(device) as peak, state_of as state:
                trained = loop.train(state, jobs, recipe, self._prepare, _reporter())
        except Exception as error:
            known = type(error).__name__ if isinstance(error, SheafError) else ""
            send(0, Message("failed", {"type": known, "message": first_line(error)}))
            return
        tensors: dict[str, Tensor] = {}
        for number, each in enumerate(trained):
            tensors |= prefixed(f"params {number}", each.params)
        losses = [each.losses for each in trained]
        send(0, Message("trained", {"losses": losses, "peak_memory_bytes": peak.bytes}, tensors))


def _reporter() -> Callable[..., None]:
    sent: dict[int, float] = {}

    def report(job: int, step: int, steps: int, *rest: Any) -> None:
        now = time.monotonic()
        if step == steps or now - sent.get(job, 0.0) > PROGRESS_SECONDS:
            sent[job] = now
            send(0, Message("steps", {"step": [job, step, steps, *rest]}))

    return report


def _to_tensors(samples: Samples, dataset: Dataset) -> dict[str, Tensor]:
    """Return what identifies samples: positions and labels if the data set contains the inputs."""
    if samples.inputs is dataset.train.inputs:
        return {"positions": samples.positions, "labels": samples.labels}
    chosen = samples.inputs[samples.positions]
    return {"inputs": chosen, "positions": torch.arange(len(chosen)), "labels": samples.labels}


def _to_samples(tensors: Mapping[str, Tensor], dataset: Dataset) -> Samples:
    inputs = tensors.get("inputs", dataset.train.inputs)
    targets = torch.zeros(len(inputs), dtype=torch.int64)
    targets[tensors["positions"]] = tensors["labels"]
    return Samples(inputs, targets, tensors["positions"])
