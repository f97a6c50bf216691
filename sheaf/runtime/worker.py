"""A site with data that does tasks. An edge is a Worker; the cloud is a Worker over the pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import Recipe, Share
from sheaf.core.seeds import seed_for
from sheaf.core.task import Cost, Progress, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.core.wire_format import decode_samples, encode_samples
from sheaf.data.sample_selection import choose_samples
from sheaf.data.synthetic_negatives import make_outliers
from sheaf.models import flops
from sheaf.runtime.model_store import Held
from sheaf.training import classifier_refit, loop, merge_statistics
from sheaf.training.interpolation import choose_mixture, mixture
from sheaf.training.network import Network
from sheaf.training.peak_memory import PeakMemory
from sheaf.training.vectorized import Job

TAKE = [1.0]
"""The mixture that is all of what was received."""


class Worker:
    """Does tasks on one site's data.

    Args:
        name: the site's name.
        network: what is trained; workers of one process may share it, as every task brings or recalls
            parameters.
        data: ``data.train`` is this site's own part, ``data.test`` what it is measured on.
        held_out: the site's own examples that it does not train on, for its decisions.
        folder: where the site keeps what it holds; sites may share it.
        device: where it computes.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        data: Dataset,
        held_out: Samples,
        folder: Path,
        device: torch.device | None = None,
    ) -> None:
        self.name = name
        self._give(data)
        self.held_out = held_out
        self.network = network
        self.folder = folder
        self._held = Held(folder, name)
        self.prepare = loop.Preparation(data.mean, data.std, device or torch.device("cpu"))
        self._tasks: dict[str, Callable[[Task, Progress | None], _Done]] = {
            "train": self._train,
            "adopt": self._adopt,
            "evaluate": self._evaluate,
            "share": self._share,
            "lend": self._lend,
            "restat": self._restat,
            "refit": self._refit,
            "collect": self._collect,
            "remember": self._remember,
            "choose": self._choose,
        }

    def pool(self, samples: Samples) -> None:
        """Makes ``samples`` what this site trains on: how a cloud gets the combined data."""
        self._give(replace(self.data, train=samples))

    def _give(self, data: Dataset) -> None:
        self.data = data
        self._counts = tuple(data.train.counts(len(data.classes)).tolist())

    def do(self, task: Task, progress: Progress | None = None) -> Update:
        """Does one task; what comes back depends on the task, the data and what is held, and on nothing else.

        Args:
            progress: told of every training step.

        Raises:
            DataError: there is nothing to train on.
        """
        started = time.perf_counter()
        with PeakMemory(self.prepare.device) as peak:
            done = self._tasks[task.kind](task, progress)
        return self._update(task, done, time.perf_counter() - started, peak.bytes)

    def job(self, task: Task, opened: dict[str, Params]) -> Job:
        """What a train task trains from, on what.

        Args:
            opened: parameters by their digest: those that many sites begin with are decoded once.

        Raises:
            DataError: there is nothing to train on.
        """
        samples = self._what_to_train_on(task)
        if len(samples) == 1 and any(
            isinstance(module, _BatchNorm) for module in self.network.of(task.cut).modules()
        ):
            raise DataError(f"{self.name} has one training example, over which batch norm has no variance")
        blob = self._blob_of(task)
        if blob.sha256 not in opened:
            opened[blob.sha256] = blob.open()
        return Job(opened[blob.sha256], samples, task.seed)

    def trains_on(self, task: Task) -> int:
        """How many examples a train task trains on."""
        return len(self.data.train) + self._negatives(task)

    def hold(self, task: Task, blob: Blob, named: bool = True) -> Blob:
        """Holds what a task came to, or brought; see ``Held.keep``."""
        return self._held.keep(task.call, blob, named)

    def adopted(self, task: Task, seconds: float, peak: int) -> Update:
        """Answers an adopt task that brought what is held now."""
        return self._update(task, _Done(), seconds, peak)

    def trained(self, task: Task, blob: Blob, losses: list[float], seconds: float, peak: int) -> Update:
        """Answers a train task without a statistic with what is held."""
        return self._update(task, _Done(blob, {"losses": losses}, self.cost_of(task)), seconds, peak)

    def _update(self, task: Task, done: _Done, seconds: float, peak: int) -> Update:
        spent = replace(done.cost, seconds=seconds, peak_memory_bytes=peak)
        return Update(
            self.name, task.kind, done.blob if task.reply else None, self._counts, done.metrics or {}, spent
        )

    def cost_of(self, task: Task) -> Cost:
        """What doing a task takes, before it is done: multiply-adds, and parameters of what computes."""
        if task.kind not in ("train", "refit", "restat") and not _asks_a_model(task):
            return Cost()
        macs = self.network.macs(task.cut)
        spent = len(self.data.train) * macs.forward
        if task.kind == "train":
            spent = _recipe(task).epochs * self.trains_on(task) * macs.train
        elif task.kind == "refit" and task.recipe is not None:
            classifier = self.network.classifier
            alone = flops.train_macs_per_example(classifier, (classifier.in_features,))
            spent += task.recipe.epochs * len(self.data.train) * alone
        elif task.kind == "refit":
            spent += classifier_refit.ridge_macs(self.network.classifier, len(self.data.train))
        elif task.kind == "choose":
            judged = len(self._candidates(task)) + self._remembers(task.baseline)
            spent = judged * len(self.held_out) * macs.forward
        if task.statistic and task.reply:
            examples = min(task.statistic.examples or len(self.data.train), len(self.data.train))
            spent += examples * self.network.statistic_macs(task.statistic.kind, task.cut)
        return Cost(spent, macs_per_example=macs.forward, parameters=self.network.numbers(task.cut))

    def _train(self, task: Task, progress: Progress | None) -> _Done:
        job, model = self.job(task, {}), self.network.of(task.cut)
        model.load_state_dict(job.start)
        told = None if progress is None else (lambda *step: progress(self.name, *step))
        losses = loop.train(model, job.samples, _recipe(task), self.prepare, job.seed, told)
        held = self._held.keep(task.call, _encode(model))
        answer = self._answer(task) if task.statistic and task.reply else held
        return _Done(answer, {"losses": losses}, self.cost_of(task))

    def _adopt(self, task: Task, progress: Progress | None) -> _Done:
        if task.blob is None:
            raise ValueError("an adopt task needs parameters")
        self._held.keep(task.call, task.blob)
        return _Done()

    def _evaluate(self, task: Task, progress: Progress | None) -> _Done:
        what = task.cut, self._blob_of(task).sha256, id(self.data.test)
        confusion, loss = self.network.once(what, lambda: self._measured(task))
        metrics: dict[str, Any] = {"confusion": confusion.tolist(), "loss": loss}
        if len(self.held_out):
            self._load(task)
            metrics["held_out"], _ = self._on_held_out(task)
        return _Done(metrics=metrics)

    def _measured(self, task: Task) -> tuple[Tensor, float]:
        """The confusion matrix and the loss on the test data."""
        self._load(task)
        model, classes = self.network.of(task.cut), self._classes(task.cut)
        return loop.evaluate(model, self.data.test, self.prepare, len(self.data.classes), classes)

    def _share(self, task: Task, progress: Progress | None) -> _Done:
        samples = self.data.train
        share, logits = task.share or Share(), None
        if share.choose == "uncertain":
            self._load(task)
            logits = loop.forward(self.network.of(task.cut), samples, self.prepare)
        chosen = choose_samples(samples, share, task.seed, logits)
        return _Done(encode_samples(samples.select(chosen)), cost=self.cost_of(task))

    def _lend(self, task: Task, progress: Progress | None) -> _Done:
        if task.blob is None:
            raise ValueError("a lend task needs samples")
        task.blob.write(self._lent_at)
        return _Done()

    def _restat(self, task: Task, progress: Progress | None) -> _Done:
        self._load(task)
        loop.reestimate_statistics(self.network.model, self._what_to_train_on(task), self.prepare)
        return _Done(_encode(self.network.model), {}, self.cost_of(task))

    def _refit(self, task: Task, progress: Progress | None) -> _Done:
        self._load(task)
        samples, model, last = self._what_to_train_on(task), self.network.model, self.network.classifier
        if task.ridge is not None:
            classifier_refit.refit_by_ridge(model, last, samples, task.ridge, self.prepare)
            metrics = {}
        else:
            metrics = {
                "losses": classifier_refit.refit(model, last, samples, _recipe(task), self.prepare, task.seed)
            }
        return _Done(_encode(model), metrics, self.cost_of(task))

    def _collect(self, task: Task, progress: Progress | None) -> _Done:
        return _Done(self._blob_of(task))

    def _remember(self, task: Task, progress: Progress | None) -> _Done:
        self._held.remember(task.call, task.blob)
        return _Done()

    def _choose(self, task: Task, progress: Progress | None) -> _Done:
        received, candidates = self._params_of(task), self._candidates(task)
        own = received if candidates == TAKE else self._remembered(task.since)
        accuracies, losses = {}, {}
        for a in candidates if len(self.held_out) else ():
            self.network.of(task.cut).load_state_dict(mixture(own, received, a))
            accuracies[a], losses[a] = self._on_held_out(task)
        best = max(candidates)
        if accuracies:
            baseline = accuracies[min(accuracies)]
            if self._remembers(task.baseline):
                self.network.of(task.cut).load_state_dict(self._remembered(task.baseline))
                baseline, _ = self._on_held_out(task)
            best = choose_mixture(accuracies, losses, self.held_out.labels, baseline)
        chosen = mixture(own, received, best)
        self.network.of(task.cut).load_state_dict(chosen)
        self._held.keep(task.call, Blob.of(chosen))
        metrics = {
            "mixture": best,
            "mixtures": list(accuracies),
            "accuracies": list(accuracies.values()),
            "held_out": len(self.held_out),
        }
        return _Done(self._answer(task), metrics, self.cost_of(task))

    def _candidates(self, task: Task) -> list[float]:
        """The mixtures that a choice is made from; to keep what was remembered is always one.

        A site that was away when it should have remembered can only take what it was given.
        """
        return sorted({0.0, *task.mixtures}) if self._remembers(task.since) else TAKE

    def _remembers(self, call: int) -> bool:
        return self._held.remembered(call) is not None

    def _remembered(self, call: int) -> Params:
        blob = self._held.remembered(call)
        assert blob is not None
        return blob.open()

    def _on_held_out(self, task: Task) -> tuple[float, Tensor]:
        """The loaded model's accuracy on what is held out, and its (N,) cross-entropies there."""
        model, classes = self.network.of(task.cut), self._classes(task.cut)
        return loop.judge(model, self.held_out, self.prepare, len(self.data.classes), classes)

    def _answer(self, task: Task) -> Blob:
        """The loaded model, with the statistic of it that the task asks for."""
        model = self.network.of(task.cut)
        if task.statistic is None or not task.reply:
            return _encode(model)
        found = merge_statistics.compute(model, self.data.train, task.statistic, self.prepare, task.seed)
        named = {f".{task.statistic.kind}.{name}": value for name, value in found.items()}
        return Blob.of(_params(model) | named)

    def _what_to_train_on(self, task: Task) -> Samples:
        """The site's own examples, labelled as the cut's outputs are, and the "other" ones if it has that."""
        own = self.data.train
        if len(own) == 0:
            raise DataError(f"{self.name} has nothing to train on; was anything shared with it?")
        if task.cut is None or (task.cut.classes is None and not task.cut.other):
            return own
        classes = self._classes(task.cut)
        assert classes is not None
        if not task.cut.other and not torch.isin(own.labels, classes).all():
            raise DataError(f"{self.name} has examples of classes that its part of the model lacks")
        other = len(classes)
        output = torch.full((len(self.data.classes),), other)
        output[classes] = torch.arange(other)
        parts = [Samples(own.inputs, output[own.targets], own.positions)]
        if task.cut.other:
            if task.outliers:
                count = round(task.outliers * len(own))
                made = make_outliers(own, count, seed_for(task.seed, "outliers"))
                parts.append(Samples.of(made, torch.full((count,), other)))
            if lent := self._lent():
                parts.append(Samples.of(lent.inputs, torch.full((len(lent),), other)))
        return parts[0] if len(parts) == 1 else Samples.concat(parts)

    def _negatives(self, task: Task) -> int:
        """How many examples of "other" a train task adds to the site's own."""
        if task.cut is None or not task.cut.other:
            return 0
        lent = self._lent()
        return round(task.outliers * len(self.data.train)) + (len(lent) if lent else 0)

    def _lent(self) -> Samples | None:
        return decode_samples(Blob.at(self._lent_at)) if self._lent_at.exists() else None

    @property
    def _lent_at(self) -> Path:
        return self.folder / f"{self.name}.lent.safetensors"

    def _classes(self, cut: Cut | None) -> Tensor | None:
        """(k,) the classes that the cut's outputs are for; None for all in order."""
        if cut is None:
            return None
        return torch.tensor(self.network.submodel(cut).classes)

    def _load(self, task: Task) -> None:
        self.network.of(task.cut).load_state_dict(self._params_of(task))

    def _params_of(self, task: Task) -> Params:
        """The parameters that the task brings, or else those that the site holds."""
        return self._blob_of(task).open()

    def _blob_of(self, task: Task) -> Blob:
        found = task.blob or self._held.before(task.call)
        if found is None:
            raise ValueError(f"{self.name} holds no model yet: the first task must bring one")
        return found


@dataclass(frozen=True)
class _Done:
    """What a task came to."""

    blob: Blob | None = None
    metrics: dict[str, Any] | None = None
    cost: Cost = Cost()  # noqa: RUF009  # frozen


def _recipe(task: Task) -> Recipe:
    if task.recipe is None:
        raise ValueError(f"a {task.kind} task needs a recipe")
    return task.recipe


def _asks_a_model(task: Task) -> bool:
    """Whether a task runs the network without training it."""
    uncertain = task.share is not None and task.share.choose == "uncertain"
    return task.kind == "choose" or uncertain


def _encode(model: nn.Module) -> Blob:
    return Blob.of(_params(model))


def _params(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}
