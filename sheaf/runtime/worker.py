"""A site with data that executes tasks. An edge is a Worker; the cloud is a Worker over the pooled data."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import FromStatistics, Recipe, Share
from sheaf.core.task import Cost, Progress, Task, Update, named_statistic, statistics_in
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.data.sample_selection import choose_samples
from sheaf.data.shared_samples import encode_shared
from sheaf.models import flops
from sheaf.models.checkpoints import load_state
from sheaf.runtime.edge_tensors import split
from sheaf.runtime.measured_logits import (
    RANDOM_EXAMPLES,
    MeasuredLogits,
    count_recorded,
    random_examples,
)
from sheaf.runtime.model_store import ModelStore
from sheaf.runtime.teachers import Teach, Teachers, mean_logits
from sheaf.runtime.training_data import TrainingData
from sheaf.training import classifier_from_moments, classifier_refit, loop, statistics
from sheaf.training.batch_norm import reestimate_statistics, set_from_sums
from sheaf.training.batches import Job, examples_of
from sheaf.training.class_moments import ClassMoments
from sheaf.training.evaluation import Evaluation, balanced_accuracy, evaluate, forward
from sheaf.training.interpolation import choose_mixture, mixture
from sheaf.training.lone_site import train_plainly
from sheaf.training.network import Network
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.preparation import Preparation
from sheaf.training.step import distils

TAKE_RECEIVED = [1.0]
"""The only mixture of a site that has nothing to mix with: the received model as it is."""


Train = Callable[[Network, Cut | None, Job, Recipe, Preparation, loop.Progress | None], loop.Trained]
"""Trains a job with a network or a sub-model of it; the result may share the memory of its module."""


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
        blob = self._blob_of(task)
        if blob.key not in opened:
            opened[blob.key] = split(blob.open())
        start, constants = opened[blob.key]
        if task.continues and task.blob is not None:
            constants = split(task.blob.open())[1]
        if "teacher" in constants:
            samples = _numbered(samples)
        elif task.recipe is not None and distils(task.recipe):
            raise DataError(
                f"{self.name} has no teacher, which loss = 'distillation' needs: only finetune of ecavg, "
                "ecavg_plus and decoupled can have this loss; set another loss for the other recipes"
            )
        return Job(start, samples, task.seed, constants)

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
        if task.kind not in ("train", "refit", "restat", "summarize") and not _runs_network(task):
            return Cost()
        if isinstance(task.refit, FromStatistics):
            return Cost(classifier_from_moments.macs(self.network.classifier, task.refit))
        macs = self.network.macs(task.cut, task.blocks)
        spent = len(self.data.train) * macs.forward
        if task.kind == "summarize":
            spent = 0  # beyond the statistic, below
        elif task.kind == "train":
            spent = examples_of(recipe_of(task), self.training_examples(task)) * macs.train
        elif task.kind == "refit" and task.recipe is not None:
            classifier = self.network.classifier
            per_example = flops.train_macs_per_example(classifier, (classifier.in_features,))
            spent += examples_of(task.recipe, len(self.data.train)) * per_example
        elif task.kind == "refit":
            spent += classifier_refit.ridge_macs(self.network.classifier, len(self.data.train))
        elif task.kind == "choose":
            models = len(self._candidates(task)) + self._remembers(task.baseline) if task.mixtures else 0
            spent = models * len(self.held_out) * macs.forward
        if task.statistic and task.reply:
            examples = min(task.statistic.examples or len(self.data.train), len(self.data.train))
            kind, layer = task.statistic.kind, task.statistic.layer
            spent += examples * self.network.statistic_macs(kind, task.cut, layer, task.blocks)
        parameters = self.network.num_parameters(task.cut, task.blocks)
        return Cost(spent, macs_per_example=macs.forward, parameters=parameters)

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
        if task.statistic and task.reply:
            load_state(self.network.of(task.cut), trained.params)
            reply = self._reply(task)
        return Outcome(reply, {"losses": trained.losses}, self.cost_of(task))

    def _adopt(self, task: Task, progress: Progress | None) -> Outcome:
        if task.blob is None:
            raise ValueError("an adopt task needs parameters")
        self.store.keep(task.call, task.blob)
        return Outcome()

    def _evaluate(self, task: Task, progress: Progress | None) -> Outcome:
        def evaluate_loaded() -> Evaluation:
            self._load(task)
            model, classes = self.network.of(task.cut), self._training_data.classes(task.cut)
            all_of = evaluate(model, self.data.test, self.prepare, len(self.data.classes), classes)
            return all_of._replace(logits=self._recorded(model, all_of.logits))

        parameters = self._blob_of(task).sha256
        key = task.cut, parameters, id(self.data.test)
        confusion, loss, logits = self.network.evaluated(key, evaluate_loaded)
        inputs: Literal["test", "random"] = "random" if self._private_test else "test"
        record = MeasuredLogits.of(parameters, inputs, self.prepare.device, logits)
        metrics: dict[str, Any] = {"confusion": confusion.tolist(), "loss": loss, "measured": record.header()}
        if len(self.held_out):
            self._load(task)
            metrics["held_out"], _ = self._on_held_out(task)
        return Outcome(metrics=metrics)

    def _recorded(self, model: nn.Module, logits: Tensor) -> Tensor:
        """Return the logits to record, given those of all test examples."""
        count = count_recorded(self.data.test, logits.shape[1])
        if not self._private_test:
            return logits[:count].clone()
        shape, dtype = self.data.shape, self.data.test.inputs.dtype
        few = min(count, RANDOM_EXAMPLES)
        inputs = random_examples(shape, dtype, self.data.mean, self.data.std, few)
        return forward(model, Samples.of(inputs, torch.zeros(few, dtype=torch.int64)), self.prepare)

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
        if sums := statistics_in(self._blob_of(task)):
            set_from_sums(self.network.model, sums)
            return Outcome(Blob.of(_params(self.network.model)))
        samples = self._training_data.of(self.data, task)
        reestimate_statistics(self.network.model, samples, self.prepare)
        return Outcome(Blob.of(_params(self.network.model)), {}, self.cost_of(task))

    def _refit(self, task: Task, progress: Progress | None) -> Outcome:
        self._load(task)
        model, last, losses = self.network.model, self.network.classifier, list[float]()
        if isinstance(task.refit, FromStatistics):
            moments = ClassMoments.of(statistics_in(self._blob_of(task)))
            losses = classifier_from_moments.fit(last, moments, task.refit, self.prepare, task.seed)
        elif task.refit is not None:
            samples = self._training_data.of(self.data, task)
            classifier_refit.refit_by_ridge(model, last, samples, task.refit, self.prepare)
        else:
            samples = self._training_data.of(self.data, task)
            losses = classifier_refit.refit(model, last, samples, recipe_of(task), self.prepare, task.seed)
        metrics = {"losses": losses} if losses else {}
        return Outcome(Blob.of(_params(model)), metrics, self.cost_of(task))

    def _collect(self, task: Task, progress: Progress | None) -> Outcome:
        return Outcome(self._blob_of(task))

    def _remember(self, task: Task, progress: Progress | None) -> Outcome:
        self.store.remember(task.call, task.blob)
        return Outcome()

    def _choose(self, task: Task, progress: Progress | None) -> Outcome:
        received, candidates = self._blob_of(task).open(), self._candidates(task)
        own = received if candidates == TAKE_RECEIVED else self._remembered(task.since)
        model = self.network.of(task.cut)
        accuracies, losses = {}, {}
        for a in candidates if task.mixtures and len(self.held_out) else ():
            load_state(model, mixture(own, received, a))
            accuracies[a], losses[a] = self._on_held_out(task)
        best = max(candidates)
        if accuracies:
            baseline = accuracies[min(accuracies)]
            if self._remembers(task.baseline):
                load_state(model, self._remembered(task.baseline))
                baseline, _ = self._on_held_out(task)
            best = choose_mixture(accuracies, losses, self.held_out.labels, baseline)
        chosen = mixture(own, received, best)
        load_state(model, chosen)
        self.store.keep(task.call, Blob.of(chosen))
        metrics = {
            "mixture": best,
            "mixtures": list(accuracies),
            "accuracies": list(accuracies.values()),
            "held_out": len(self.held_out),
        }
        return Outcome(self._reply(task), metrics, self.cost_of(task))

    def _candidates(self, task: Task) -> list[float]:
        """Return the mixtures to choose from; 0, the remembered model, is always one.

        A site that was away when it should have remembered a model can only take the received one.
        """
        return sorted({0.0, *task.mixtures}) if self._remembers(task.since) else TAKE_RECEIVED

    def _remembers(self, call: int) -> bool:
        return self.store.remembered(call) is not None

    def _remembered(self, call: int) -> Params:
        blob = self.store.remembered(call)
        assert blob is not None
        return blob.open()

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


def recipe_of(task: Task) -> Recipe:
    """Return the recipe of a task that needs one."""
    if task.recipe is None:
        raise ValueError(f"a {task.kind} task needs a recipe")
    return task.recipe


def _runs_network(task: Task) -> bool:
    """Return whether a task runs the network without training it."""
    uncertain = task.share is not None and task.share.choose == "uncertain"
    return task.kind == "choose" or uncertain


def _numbered(samples: Samples) -> Samples:
    """Return the N samples with labels 0 to N - 1, by which a loss finds an example's constants."""
    targets = torch.zeros_like(samples.targets)
    targets[samples.positions] = torch.arange(len(samples))
    return Samples(samples.inputs, targets, samples.positions)


def _params(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}
