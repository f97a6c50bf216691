"""The messages between a method and its sites: tasks and updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from torch import Tensor

from sheaf.core.coding import Coding
from sheaf.core.cut import Cut
from sheaf.core.recipe import FromStatistics, Recipe, Ridge, Share, Statistic
from sheaf.core.settings import plain
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params

TaskKind = Literal[
    "train",
    "adopt",
    "evaluate",
    "summarize",
    "share",
    "lend",
    "restat",
    "refit",
    "collect",
    "remember",
    "choose",
]


@dataclass(frozen=True)
class Task:
    """A request to a site. A site holds one model, its newest parameters.

    ``train``     Train the model by ``recipe`` and hold the result. Send it back if ``reply``.
    ``adopt``     Hold the parameters in ``blob``.
    ``evaluate``  Measure the model on the test data.
    ``summarize`` Compute ``statistic`` of the model in ``blob`` on the training data and send it up, without
                  parameters. The held model stays.
    ``share``     Send up training samples, selected by ``share``.
    ``lend``      Store the samples in ``blob``, which come from other sites, as examples of "none of these
                  classes".
    ``restat``    Re-estimate the batch-norm statistics on the training data, and send the model back. If
                  ``blob`` has a ``batch_norm`` statistic beside the parameters, take them from it.
    ``refit``     Fit only the classifier, on the features that the other layers compute, by ``recipe`` or as
                  ``refit`` says, and send the model back. ``FromStatistics`` needs a ``features`` statistic
                  in ``blob`` beside the parameters, and no training data.
    ``collect``   Send up the held model.
    ``remember``  Save a copy of the held model.
    ``choose``    Hold (1 - a) x remembered + a x held parameters, with the best a of 0 and ``mixtures`` on
                  the site's held-out examples. An a above 0 needs an accuracy of at least the baseline's. A
                  site without held-out examples uses the largest a; a site that missed call ``since`` keeps
                  the held parameters.

    Repeating a task of the same call gives the same answer, whatever the site did in between.

    Attributes:
        kind: the request, see above.
        call: number of the call in the run, from 1.
        seed: seed of the site's random draws for this task.
        blob: parameters, from which ``train`` starts and which ``evaluate``, ``restat`` and ``refit`` use;
            None stands for the held model. For ``lend``, samples.
        recipe: how to train or refit.
        cut: the sub-model to which the parameters belong; None is the whole model.
        reply: send the trained or chosen parameters back.
        share: how many samples to send up, and which.
        refit: how to refit without gradient steps on samples, instead of ``recipe``.
        since: the call that remembered the parameters to mix with.
        mixtures: candidates for a, each from 0 to 1.
        baseline: the call that remembered the baseline; 0 stands for ``since``.
        outliers: number of synthetic examples for the "other" output of the sub-model, made from the site's
            own, as a multiple of their number. Lent samples train this output, too.
        statistic: a statistic that the answer carries, beside the parameters if there are any.
        continues: train the held model; ``blob`` has only the loss's constants (``runtime/edge_tensors.py``).
        coding: the codecs of the parameters; None: they are sent as float32.
        blocks: the cuts of the sub-models that the whole model in ``blob`` is bound from: the zeros between
            their channels are neither sent nor multiplied (``submodels/block_diagonal.py``); empty: it is
            sent whole.
    """

    kind: TaskKind
    call: int
    seed: int
    blob: Blob | None = None
    recipe: Recipe | None = None
    cut: Cut | None = None
    reply: bool = True
    share: Share | None = None
    refit: Ridge | FromStatistics | None = None
    since: int = 0
    mixtures: tuple[float, ...] = ()
    baseline: int = 0
    outliers: float = 0.0
    statistic: Statistic | None = None
    continues: bool = False
    coding: Coding | None = None
    blocks: tuple[Cut, ...] = ()

    @property
    def is_repeatable(self) -> bool:
        """Whether an edge's answer depends only on the task and the edge's own data.

        Other answers depend on the models, the samples or the encoding error that the site stores, which the
        next call may change.
        """
        is_difference = self.coding is not None and self.coding.base > 0
        return self._brings_model and not is_difference and not self._has_feedback

    @property
    def is_retrainable(self) -> bool:
        """Whether a simulated edge can repeat the training instead of keeping its model."""
        return self.kind == "train" and self._brings_model and not self._has_feedback

    @property
    def has_parameters(self) -> bool:
        """Whether ``blob`` contains parameters of the model."""
        return self.blob is not None and self.kind != "lend" and not self.continues

    @property
    def _brings_model(self) -> bool:
        uses_lent_samples = self.cut is not None and self.cut.other
        kinds = ("train", "adopt", "evaluate", "summarize")
        return self.kind in kinds and self.has_parameters and not uses_lent_samples

    @property
    def _has_feedback(self) -> bool:
        return self.coding is not None and self.coding.upload.feedback

    def header(self) -> dict[str, Any]:
        """Return everything except the parameters as a JSON object."""
        header = {
            "kind": self.kind,
            "call": self.call,
            "seed": self.seed,
            "recipe": None if self.recipe is None else dict(_recipe_header(self.recipe)),
            "cut": None if self.cut is None else self.cut.header(),
            "reply": self.reply,
            "share": _flat(self.share),
            "refit": None if self.refit is None else plain(self.refit),
            "since": self.since,
            "mixtures": list(self.mixtures),
            "baseline": self.baseline,
            "outliers": self.outliers,
            "statistic": None if self.statistic is None else asdict(self.statistic),
            "continues": self.continues,
        }
        if self.coding is not None:
            header["coding"] = plain(self.coding)
        if self.blocks:
            header["blocks"] = [cut.header() for cut in self.blocks]
        return header


@lru_cache(32)
def _recipe_header(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as a JSON object, which must not be modified."""
    header = dict(vars(recipe)) | {"loss": plain(recipe.loss)}
    if recipe.work == 1:
        del header["work"]
    if recipe.part is None:
        del header["part"]
    else:
        header["part"] = plain(recipe.part)
    return header


def _flat(settings: object | None) -> dict[str, Any] | None:
    """Return a dataclass of numbers and strings as a dict. ``asdict`` takes ten times as long."""
    return None if settings is None else dict(vars(settings))


@dataclass(frozen=True)
class Cost:
    """The cost of one task. Multiply-adds count convolutions and matrix products only.

    Attributes:
        train_macs: multiply-adds of training, forward and backward.
        seconds: measured time.
        peak_memory_bytes: measured peak memory.
        macs_per_example: multiply-adds of one forward pass of the trained network; 0 if the task trained
            none.
        parameters: number of parameters of the trained network; 0 if the task trained none.
    """

    train_macs: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    macs_per_example: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class Times:
    """When a site executed a task: on a simulated device in virtual time, on a real one measured.

    Attributes:
        start: seconds from the start of the run until the cloud sends the task.
        download: seconds in which the device receives it.
        work: seconds in which it computes.
        upload: seconds in which it sends the answer.
        joules: its energy in these seconds; None: unknown.
    """

    start: float
    download: float = 0.0
    work: float = 0.0
    upload: float = 0.0
    joules: float | None = None

    @property
    def end(self) -> float:
        """Seconds from the start of the run until the cloud has the answer, or gives it up."""
        return self.start + self.download + self.work + self.upload


@dataclass(frozen=True)
class Update:
    """A site's answer to a task.

    Attributes:
        site: the site's name.
        kind: the kind of the task.
        blob: parameters or samples, decoded on access; None if the task asks for neither. A statistic is
            stored beside the parameters, under names that begin with a dot, which no parameter's name does.
        counts: (K) numbers of the site's training examples of each class.
        metrics: after training, ``losses`` (the mean of each epoch). After evaluation, ``confusion`` (K x K,
            rows are true classes), ``loss`` and ``measured`` (``MeasuredLogits``). After choosing, the chosen
            ``mixture``, the ``accuracies`` of all ``mixtures``, and ``held_out``, the number of examples that
            these were measured on.
        cost: the cost of the task.
        times: when the site executed the task, noted by the fleet; None: not noted. No part of the message.
    """

    site: str
    kind: str
    blob: Blob | None
    counts: tuple[int, ...]
    metrics: dict[str, Any]
    cost: Cost
    times: Times | None = None

    @property
    def examples(self) -> int:
        """The number of the site's training examples."""
        return sum(self.counts)

    @property
    def params(self) -> Params:
        """The parameters, decoded on every access. The update does not cache them."""
        return self._sent.open(lambda name: not name.startswith("."))

    @property
    def strided_params(self) -> Params:
        """The same with any strides: without the copies that make tensors in memory contiguous."""
        tensors = self._sent.open_strided()
        return {name: value for name, value in tensors.items() if not name.startswith(".")}

    @property
    def statistics(self) -> Params:
        """The requested statistic: parameter -> tensor. Decoded on every access."""
        return statistics_in(self._sent)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows of one parameter without decoding the others. A scalar is returned whole."""
        return self._sent.rows(name, start, stop)

    @property
    def _sent(self) -> Blob:
        if self.blob is None:
            raise ValueError(f"{self.site}'s answer to {self.kind} carries no parameters")
        return self.blob

    def header(self) -> dict[str, Any]:
        """Return everything except the tensors as a JSON object."""
        return {
            "site": self.site,
            "kind": self.kind,
            "counts": list(self.counts),
            "metrics": self.metrics,
            "cost": _flat(self.cost),
        }

    def at(self, times: Times) -> Update:
        """Return the update with its times; its header is not encoded again."""
        timed = object.__new__(Update)  # ``replace`` would lose the encoded header
        vars(timed).update(vars(self), times=times)
        return timed

    @classmethod
    def of(cls, header: dict[str, Any], blob: Blob | None, times: Times | None = None) -> Update:
        """Return the update with this ``header()``, blob and times."""
        return cls(
            site=header["site"],
            kind=header["kind"],
            blob=blob,
            counts=tuple(header["counts"]),
            metrics=header["metrics"],
            cost=Cost(**header["cost"]),
            times=times,
        )


def statistics_in(blob: Blob) -> Params:
    """Return the statistic in a blob, without the dot and the kind that begin its names."""
    tensors = blob.open(lambda name: name.startswith("."))
    return {name.split(".", 2)[-1]: value for name, value in tensors.items()}


def named_statistic(kind: str, values: Params) -> Params:
    """Return the tensors of a statistic under the names that they have in a blob."""
    return {f".{kind}.{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class Absence:
    """A missing answer: the site did not answer a task, or its answer is unusable.

    Attributes:
        site: the site's name.
        why: the reason, for the user.
        times: when the device worked for the task in vain, if the fleet noted it.
        refusal: the device's reason for refusing the task; empty: it did not refuse.
    """

    site: str
    why: str
    times: Times | None = None
    refusal: str = ""


Progress = Callable[[str, int, int, float, int], None]
"""Reports a training step: site, steps done, total steps, loss of the last step, examples so far."""
