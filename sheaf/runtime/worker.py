"""A site with data that executes tasks. An edge is a Worker; the cloud is a Worker over the pooled data."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.recipe import Recipe, Share
from sheaf.core.task import Cost, Progress, Task, Update, named_statistic
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.data.sample_selection import choose_samples
from sheaf.data.shared_samples import encode_shared
from sheaf.models.checkpoints import load_state
from sheaf.runtime.mixture_choice import choose, count_judged
from sheaf.runtime.model_store import ModelStore
from sheaf.runtime.refit import fit_batch_norm, fit_classifier
from sheaf.runtime.site_evaluation import evaluate_on_test
from sheaf.runtime.task_cost import cost_of
from sheaf.runtime.teachers import Teach, Teachers, mean_logits
from sheaf.runtime.training_data import TrainingData
from sheaf.runtime.training_job import job_of, recipe_of
from sheaf.training import loop, statistics
from sheaf.training.batches import Job
from sheaf.training.evaluation import balanced_accuracy, forward
from sheaf.training.lone_site import train_plainly
from sheaf.training.network import Network
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.preparation import Preparation
from sheaf.training.step import distils

Train = Callable[[Network, Cut | None, Job, Recipe, Preparation, loop.Progress | None], loop.Trained]
"""Trains a job with a network or a sub-model of it; the result may share the memory of its module."""


UNBOOKED = ("evaluate", "collect")
"""Kinds of tasks whose cost no call books. Their memory is not measured, which takes 0.1 ms."""


@dataclass(frozen=True)
class Outcome:
    """The result of a task.

    Attributes:
        blob: parameters or samples of the reply, or None.
        metrics: of the reply; see ``Update``.
        cost: of the task, without seconds and memory.
    """

    blob: Blob | None = None
    metrics: dict[str, Any] | None = None
    cost: Cost = Cost()  # noqa: RUF009  # frozen


class Worker:
    """Executes tasks on one site's data.

    Args:
        name: the site's name.
        network: the network; workers of one process may share it, as every task brings or recalls parameters.
        data: ``data.train`` holds the site's own training examples, ``data.test`` the test examples.
        held_out: the site's own examples for its decisions, on which it does not train.
        folder: where the site stores its models; sites may share it.
        device: where it computes; the CPU by default.
        private_test: the test examples are the site's own and unknown to the cloud.
        may_leave: see ``choose_samples``; by default, all training examples may leave the site.
        originals: see ``encode_shared``.
        train: executes the training of a train task.
        key: from which the noise of statistics is derived; must be secret where noise protects somebody.
        public: unlabelled samples for distillation; None: it uses the training examples.
        teach: computes the logits of the teachers.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        data: Dataset,
        held_out: Samples,
        folder: Path,
        device: torch.device | None = None,
        *,
        private_test: bool = False,
        may_leave: Callable[[Tensor], Tensor] | None = None,
        originals: bool = True,
        train: Train = train_plainly,
        key: bytes = b"",
        public: Samples | None = None,
        teach: Teach = mean_logits,
    ) -> None:
        self.name = name
        self._public = public
        self._teach = teach
        self._key = key
        self._train_model = train
        self._may_leave = may_leave
        self._originals = originals
        self._private_test = private_test
        self._set_data(data)
        self.held_out = held_out
        self.network = network
        self.folder = folder
        self.store = ModelStore(folder, name)
        self.prepare = Preparation(data.mean, data.std, device or torch.device("cpu"))
        self._training_data = TrainingData(name, network, folder / f"{name}.lent.safetensors")

    def pool(self, samples: Samples) -> None:
        """Train on ``samples`` from now on: the cloud's pooled data."""
        self._set_data(replace(self.data, train=samples))

    def _set_data(self, data: Dataset) -> None:
        self.data = data
        self._counts = tuple(data.train.counts(len(data.classes)).tolist())

    def do(self, task: Task, progress: Progress | None = None) -> Update:
        """Execute one task. The update depends only on the task, the data and the stored models.

        ``worker_group`` executes train tasks of several workers together.

        Args:
            progress: called after training steps.

        Raises:
            DataError: there is nothing to train on.
        """
        started = time.perf_counter()
        if task.kind in UNBOOKED:
            return self.update(task, TASKS[task.kind](self, task, progress), time.perf_counter() - started, 0)
        with PeakMemory(self.prepare.device) as peak:
            outcome = TASKS[task.kind](self, task, progress)
        return self.update(task, outcome, time.perf_counter() - started, peak.bytes)

    def update(self, task: Task, outcome: Outcome, seconds: float, peak_memory_bytes: int) -> Update:
        """Return the reply to a task from its outcome and what it took."""
        cost = replace(outcome.cost, seconds=seconds, peak_memory_bytes=peak_memory_bytes)
        blob = outcome.blob if task.reply else None
        return Update(self.name, task.kind, blob, self._counts, outcome.metrics or {}, cost)

    def job(self, task: Task, opened: dict[str, tuple[Params, Params]]) -> Job:
        """Return the training of a train task.

        Args:
            opened: key of a blob -> its content: decodes the parameters that several sites start from once.

        Raises:
            DataError: there is nothing to train on.
        """
        samples = self._training_data.of(self._data_for(task), task)
        self._training_data.check_batch_norm(samples, task.cut)
        return job_of(self.name, task, samples, self._blob_of(task), opened)

    @property
    def unlabelled(self) -> Samples:
        """The samples on which a model is distilled."""
        return self.data.train if self._public is None else self._public

    def teacher(self, teachers: Teachers) -> Tensor:
        """Return the (N, K) logits from which a model is distilled, on the samples of ``unlabelled``."""
        return self._teach(self.network, teachers, self.unlabelled, self.prepare, len(self.data.classes))

    def _data_for(self, task: Task) -> Dataset:
        """Return the dataset whose training examples a train task uses."""
        if task.recipe is None or not distils(task.recipe):
            return self.data
        return replace(self.data, train=self.unlabelled)

    def training_examples(self, task: Task) -> int:
        """Return the number of examples that a train task trains on."""
        return self._training_data.count(self._data_for(task), task)

    def cost_of(self, task: Task) -> Cost:
        """Return the cost of a task before it is executed: multiply-adds, and parameters of its network."""
        processed = 0
        if task.kind == "train":
            processed = self.training_examples(task)
        elif task.kind == "choose":
            processed = count_judged(task, self.store) * len(self.held_out)
        return cost_of(task, self.network, len(self.data.train), processed)

    def macs_of(self, task: Task) -> int:
        """Return the multiply-adds of a task, before it is executed: of its training and forward passes."""
        if task.kind == "evaluate":
            return (len(self.data.test) + len(self.held_out)) * self.network.macs(task.cut).forward
        return self.cost_of(task).train_macs

    def _train(self, task: Task, progress: Progress | None) -> Outcome:
        told = None if progress is None else (lambda _, *step: progress(self.name, *step))
        job = self.job(task, {})
        trained = self._train_model(self.network, task.cut, job, recipe_of(task), self.prepare, told)
        reply = self.store.keep(task.call, Blob.of(trained.params))
        if task.statistic and job.keep_optimizer:
            statistic = named_statistic(task.statistic.kind, trained.optimizer)
            reply = Blob.of({**trained.params, **statistic})
        elif task.statistic and task.reply:
            load_state(self.network.of(task.cut), trained.params)
            reply = self._reply(task)
        return Outcome(reply, {"losses": trained.losses}, self.cost_of(task))

    def _adopt(self, task: Task, progress: Progress | None) -> Outcome:
        if task.blob is None:
            raise ValueError("an adopt task needs parameters")
        self.store.keep(task.call, task.blob)
        return Outcome()

    def _evaluate(self, task: Task, progress: Progress | None) -> Outcome:
        classes = self._training_data.classes(task.cut)
        metrics = evaluate_on_test(
            self.network,
            task.cut,
            self._blob_of(task).sha256,
            lambda: self._load(task),
            self.data,
            classes,
            self.prepare,
            self._private_test,
        )
        if len(self.held_out):
            self._load(task)
            metrics["held_out"], _ = self._on_held_out(task)
        return Outcome(metrics=metrics)

    def _summarize(self, task: Task, progress: Progress | None) -> Outcome:
        if task.statistic is None:
            raise ValueError("a summarize task needs a statistic")
        self._load(task)
        return Outcome(Blob.of(self._statistic(task)), cost=self.cost_of(task))

    def _share(self, task: Task, progress: Progress | None) -> Outcome:
        samples = self.data.train
        share, logits = task.share or Share(), None
        if share.choose == "uncertain":
            self._load(task)
            logits = forward(self.network.of(task.cut), samples, self.prepare)
        chosen = choose_samples(samples, share, task.seed, logits, self._may_leave)
        blob = encode_shared(samples.select(chosen), self.data.bits, originals=self._originals)
        return Outcome(blob, cost=self.cost_of(task))

    def _lend(self, task: Task, progress: Progress | None) -> Outcome:
        if task.blob is None:
            raise ValueError("a lend task needs samples")
        self._training_data.lend(task.blob)
        return Outcome()

    def _restat(self, task: Task, progress: Progress | None) -> Outcome:
        self._load(task)
        blob, samples = self._blob_of(task), partial(self._training_data.of, self.data, task)
        ran = fit_batch_norm(self.network, blob, samples, self.prepare)
        return Outcome(Blob.of(_params(self.network.model)), cost=self.cost_of(task) if ran else Cost())

    def _refit(self, task: Task, progress: Progress | None) -> Outcome:
        self._load(task)
        blob, samples = self._blob_of(task), partial(self._training_data.of, self.data, task)
        losses = fit_classifier(task, self.network, blob, samples, self.prepare)
        metrics = {"losses": losses} if losses else {}
        return Outcome(Blob.of(_params(self.network.model)), metrics, self.cost_of(task))

    def _collect(self, task: Task, progress: Progress | None) -> Outcome:
        return Outcome(self._blob_of(task))

    def _remember(self, task: Task, progress: Progress | None) -> Outcome:
        self.store.remember(task.call, task.blob)
        return Outcome()

    def _choose(self, task: Task, progress: Progress | None) -> Outcome:
        model, received = self.network.of(task.cut), self._blob_of(task).open()

        def judge(params: Params) -> tuple[float, Tensor]:
            load_state(model, params)
            return self._on_held_out(task)

        chosen, metrics = choose(task, self.store, received, self.held_out.labels, judge)
        load_state(model, chosen)
        self.store.keep(task.call, Blob.of(chosen))
        return Outcome(self._reply(task), metrics, self.cost_of(task))

    def _on_held_out(self, task: Task) -> tuple[float, Tensor]:
        """Return the loaded model's accuracy on the held-out examples, and its (N,) cross-entropies."""
        model, classes = self.network.of(task.cut), self._training_data.classes(task.cut)
        return balanced_accuracy(model, self.held_out, self.prepare, len(self.data.classes), classes)

    def _reply(self, task: Task) -> Blob:
        """Return the loaded model, with the statistic that the task asks for."""
        params = _params(self.network.of(task.cut))
        if task.statistic is None or not task.reply:
            return Blob.of(params)
        return Blob.of({**params, **self._statistic(task)})

    def _statistic(self, task: Task) -> Params:
        """Return the statistic that the task asks for, of the loaded model, by the names of a blob."""
        assert task.statistic is not None
        network, samples = self.network, self.data.train
        with network.bound(task.blocks).multiplied(network.model) if task.blocks else nullcontext():
            values = statistics.compute(
                network, task.cut, samples, task.statistic, self.prepare, task.seed, self._key
            )
        return named_statistic(task.statistic.kind, values)

    def _load(self, task: Task) -> None:
        """Load the parameters that the task brings, or else those that the site holds, without statistics."""
        params = self._blob_of(task).open(lambda name: not name.startswith("."))
        if task.blocks:
            params = self.network.bound(task.blocks).unpack(params, self.network.shapes(None))
        load_state(self.network.of(task.cut), params)

    def _blob_of(self, task: Task) -> Blob:
        """Return the parameters that the task brings, or else those that the site holds."""
        blob = (None if task.continues else task.blob) or self.store.before(task.call)
        if blob is None:
            raise ValueError(f"{self.name} holds no model yet: the first task must bring one")
        return blob


# Not an attribute of a worker: bound methods would be a reference cycle, which keeps a run's data in memory.
TASKS: dict[str, Callable[[Worker, Task, Progress | None], Outcome]] = {
    "train": Worker._train,
    "adopt": Worker._adopt,
    "evaluate": Worker._evaluate,
    "summarize": Worker._summarize,
    "share": Worker._share,
    "lend": Worker._lend,
    "restat": Worker._restat,
    "refit": Worker._refit,
    "collect": Worker._collect,
    "remember": Worker._remember,
    "choose": Worker._choose,
}
"""The kinds of tasks, and what executes them."""


def _params(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}
