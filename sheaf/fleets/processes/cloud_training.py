"""Training of the cloud's model by several processes: PyTorch's distributed data parallel."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.errors import FleetError
from sheaf.core.recipe import Recipe
from sheaf.core.settings import parse, plain
from sheaf.fleets.processes.group import Processes, torch_threads
from sheaf.fleets.processes.messages import Message, prefixed, with_prefix
from sheaf.training import loop
from sheaf.training.batches import Job
from sheaf.training.distributed import DistributedSite
from sheaf.training.lone_site import train_plainly
from sheaf.training.loop import Progress, Trained
from sheaf.training.network import Network
from sheaf.training.preparation import Preparation


class CloudProcesses:
    """Trains the cloud's model in this process and others; see ``runtime.worker.Train``.

    Args:
        processes: the processes of the run.
        folder: of the run, for messages.
    """

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self._folder = folder
        self._sent: Tensor | None = None  # the inputs that the other processes hold

    def __call__(
        self,
        network: Network,
        cut: Cut | None,
        job: Job,
        recipe: Recipe,
        prepare: Preparation,
        progress: Progress | None,
    ) -> Trained:
        """Train the job in all processes and return the result, which is the same in all.

        Raises:
            FleetError: a process has ended.
        """
        if job.constants:  # which the other processes do not have
            return train_plainly(network, cut, job, recipe, prepare, progress)
        group = self._processes.step_group
        assert group is not None
        tensors = prefixed("start", job.start)
        tensors |= {"positions": job.samples.positions, "targets": job.samples.targets}
        if self._sent is not job.samples.inputs:
            tensors["inputs"] = job.samples.inputs
        threads = self._processes.threads
        header = {"recipe": plain(recipe), "seed": job.seed, "threads": threads}
        try:
            for rank in range(1, group.size()):
                self._processes.send(rank, Message("train cloud", header, tensors))
            self._sent = job.samples.inputs
            with torch_threads(threads):
                (trained,) = loop.train(
                    DistributedSite(network.of(cut), recipe, group), [job], recipe, prepare, progress
                )
        except (FleetError, RuntimeError) as error:
            if not _is_of_connection(error):
                raise
            raise FleetError(
                "a process that trains the cloud's model has ended; continue with: sheaf run --resume "
                f"{self._folder}, or start the run again with a smaller cloud.processes"
            ) from error
        return trained


class CloudTrainer:
    """Takes part in the training of the cloud's model.

    Args:
        model: the whole model.
        prepare: normalises the inputs.
    """

    def __init__(self, model: nn.Module, prepare: Preparation) -> None:
        self._model = model
        self._prepare = prepare
        self._inputs = torch.empty(0)

    def execute(self, message: Message, group: dist.ProcessGroup) -> None:
        """Train the job of a message of ``CloudProcesses``."""
        tensors, header = message.tensors, message.header
        torch.set_num_threads(header["threads"])
        self._inputs = tensors.get("inputs", self._inputs)
        samples = Samples(self._inputs, tensors["targets"], tensors["positions"])
        start = with_prefix("start", tensors)
        recipe = parse(Recipe, header["recipe"])
        state = DistributedSite(self._model, recipe, group)
        loop.train(state, [Job(start, samples, header["seed"])], recipe, self._prepare)


def _is_of_connection(error: Exception) -> bool:
    """Return whether an error is that of a lost process, not of the training."""
    causes = ("connection", "broken pipe", "timed out", "gloo", "nccl")
    return isinstance(error, FleetError | dist.DistError) or any(c in str(error).lower() for c in causes)
