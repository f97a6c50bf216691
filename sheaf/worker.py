"""A site with data that does tasks. An edge is a Worker; the cloud is a Worker over the pool."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sheaf import cost, training
from sheaf.blob import Blob
from sheaf.errors import DataError
from sheaf.held import Held
from sheaf.memory import PeakMemory
from sheaf.seeds import generator
from sheaf.types import Cost, Dataset, Progress, Recipe, Samples, Task, Update
from sheaf.wire import encode_samples


class Worker:
    """Does tasks on one site's data.

    Args:
        name: the site's name.
        model: the network; workers of one process may share it, as every task brings or recalls parameters.
        data: ``data.train`` is this site's own part, ``data.test`` what it is measured on.
        held_out: the site's own examples that it does not train on, for its decisions.
        folder: where the site keeps what it holds.
        device: where it computes.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        data: Dataset,
        held_out: Samples,
        folder: Path,
        device: torch.device | None = None,
    ) -> None:
        self.name = name
        self.data = data
        self.held_out = held_out
        self._model = model
        self._held = Held(folder)
        self._prepare = training.Preparation(data.mean, data.std, device or torch.device("cpu"))

        self._tasks = {
            "train": self._train,
            "adopt": self._adopt,
            "evaluate": self._evaluate,
            "share": self._share,
            "collect": self._collect,
        }

    def pool(self, samples: Samples) -> None:
        """Makes ``samples`` what this site trains on: how a cloud gets the combined data."""
        self.data = replace(self.data, train=samples)

    def do(self, task: Task, progress: Progress | None = None) -> Update:
        """Does one task; what comes back depends on the task, the data and what is held, and on nothing else.

        Raises:
            DataError: there is nothing to train on.
        """
        started = time.perf_counter()
        with PeakMemory(self._prepare.device) as peak:
            blob, metrics, macs = self._tasks[task.kind](task, progress)
        counts = self.data.train.counts(len(self.data.classes)).tolist()
        spent = Cost(macs, time.perf_counter() - started, peak.bytes)
        return Update(self.name, task.kind, blob if task.reply else None, tuple(counts), metrics, spent)

    def training_macs(self, recipe: Recipe) -> int:
        """Multiply-adds of training by ``recipe`` on this site's data, forward and backward."""
        return recipe.epochs * len(self.data.train) * self._macs_per_trained_example

    def _train(self, task: Task, progress: Progress | None) -> _Done:
        samples, recipe = self.data.train, task.recipe
        if recipe is None:
            raise ValueError("a train task needs a recipe")
        if len(samples) == 0:
            raise DataError(f"{self.name} has nothing to train on; was anything shared with it?")
        if len(samples) == 1 and any(isinstance(m, _BatchNorm) for m in self._model.modules()):
            raise DataError(f"{self.name} has one training example, over which batch norm has no variance")
        self._load(task)
        told = None if progress is None else (lambda *step: progress(self.name, *step))
        losses = training.train(self._model, samples, recipe, self._prepare, task.seed, told)
        blob = self._encode_model()
        self._held.keep(task.call, blob)
        return blob, {"losses": losses}, self.training_macs(recipe)

    def _adopt(self, task: Task, progress: Progress | None) -> _Done:
        if task.blob is None:
            raise ValueError("an adopt task needs parameters")
        self._held.keep(task.call, task.blob)
        return None, {}, 0

    def _evaluate(self, task: Task, progress: Progress | None) -> _Done:
        self._load(task)
        classes = len(self.data.classes)
        confusion, loss = training.evaluate(self._model, self.data.test, self._prepare, classes)
        metrics = {"confusion": confusion.tolist(), "loss": loss}
        if len(self.held_out):
            kept, _ = training.evaluate(self._model, self.held_out, self._prepare, classes)
            metrics["held_out"] = kept.diagonal().sum().item() / len(self.held_out)
        return None, metrics, 0

    def _share(self, task: Task, progress: Progress | None) -> _Done:
        samples = self.data.train
        count = round(task.fraction * len(samples))
        chosen = torch.randperm(len(samples), generator=generator(task.seed))[:count].sort().values
        return encode_samples(samples.select(chosen)), {}, 0

    def _collect(self, task: Task, progress: Progress | None) -> _Done:
        self._load(task)
        return self._encode_model(), {}, 0

    def _load(self, task: Task) -> None:
        if task.blob is not None:
            params = task.blob.open()
        elif held := self._held.before(task.call):
            params = load_file(held)
        else:
            raise ValueError(f"{self.name} holds no model yet: the first task must bring one")
        self._model.load_state_dict(params)

    def _encode_model(self) -> Blob:
        return Blob.of({name: value.cpu() for name, value in self._model.state_dict().items()})

    @cached_property
    def _macs_per_trained_example(self) -> int:
        return cost.train_macs_per_example(self._model, self.data.shape)


_Done = tuple[Blob | None, dict[str, object], int]
