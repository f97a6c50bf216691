"""The nouns: what methods, sites and engines speak of. Everything here is plain data.

Shapes: N examples, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeVar, cast, dataclass_transform

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from sheaf.blob import Blob
from sheaf.errors import CutError, PartitionError

Params = Mapping[str, Tensor]
"""A CPU state_dict, never written in place."""

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[_T]) -> type[_T]:
    """Decorator: a frozen dataclass, checked when it is made; its fields are keys of an experiment."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    checked: Any = checked_dataclass(frozen=True, kw_only=True, config=config)(cls)
    return cast(type[_T], checked)


CLOUD = "cloud"
"""The site that is not an edge."""


def check_edge_name(name: str) -> None:
    """A site's name becomes a file's name, so it can be no path.

    Raises:
        PartitionError: an edge cannot have that name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == CLOUD:
        raise PartitionError(
            f"an edge cannot be named {name!r}: letters, digits, '.', '_' and '-', at most 64, not {CLOUD!r}"
        )


@settings
class Recipe:
    """How a site trains. Plain data.

    ``epochs`` is passes over the site's own training images. ``precision = "auto"`` is bfloat16 on CUDA
    and float32 elsewhere. ``augment`` works on whole batches: ``flip`` mirrors half of the images left to
    right, ``crop`` shifts each by up to an eighth of its side.

    ``alpha`` is what the logits of classes that the site has no example of are multiplied by in the loss
    (restricted softmax, FedRS: Li, Zhan, KDD 2021, equation 6): 1 is the plain softmax, 0 is HeteroFL's mask,
    ``mask`` leaves them out altogether. What a site never sees is then not unlearned as thoroughly.

    ``tail`` is the share of the last steps over which the weights are averaged (see ``tail.py``): training
    then leaves their mean instead of the last ones. 0 is off.
    """

    epochs: Annotated[int, Field(ge=0)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    augment: tuple[Literal["flip", "crop"], ...] = ()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["mask"] = 1.0
    tail: Annotated[float, Field(ge=0, le=1)] = 0.0


@settings
class Share:
    """How much of its training samples an edge sends up, and which; the least of the limits holds.

    Attributes:
        fraction: of the edge's samples.
        count: of samples, at most.
        bytes: of the encoded samples, at most.
        choose: ``random``; ``balanced`` takes as many of each class as there are, as far as they go;
            ``uncertain`` takes those over which the model that the edge holds is least decided (the entropy
            of its predictions).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None
    choose: Literal["random", "balanced", "uncertain"] = "random"


@settings
class Ridge:
    """Refits the classifier by ridge regression on one-hot targets: no gradient step.

    Attributes:
        ridge: what is added to the diagonal of the features' Gram matrix, as a share of its mean.
        rescale: then multiply the logits, which regression leaves small, by the one number of least
            cross-entropy, so that a fine-tune starts from probabilities that mean something.
    """

    ridge: Annotated[float, Field(gt=0)] = 1e-3
    rescale: bool = True


StatisticKind = Literal["gram", "fisher"]


@dataclass(frozen=True)
class Statistic:
    """What a site computes of its own data and what it has trained, for a merge to weigh it by.

    ``gram``    of each linear layer and convolution: the mean over examples of X'X, X the rows that it takes
    ``fisher``  of each parameter: the diagonal of the Fisher information

    Attributes:
        examples: how many of the site's training examples it is computed on, drawn at random; None for all.
    """

    kind: StatisticKind
    examples: int | None = None


@dataclass(frozen=True)
class Samples:
    """Examples in memory: shared tensors, and the positions in them that are meant.

    Any number of sites can hold parts of the same ``inputs``; a part costs its positions alone.

    Attributes:
        inputs: (M, C, H, W), uint8 for images, float32 for features such as log-mel spectrograms.
        targets: (M,) int64 class of each of ``inputs``.
        positions: (N,) int64, which of the M are meant, in this order.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor) -> Samples:
        """All of ``inputs``."""
        return cls(inputs, targets, torch.arange(len(inputs)))

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """The parts one after another, in memory of their own."""
        return cls.of(
            torch.cat([part.inputs[part.positions] for part in parts]),
            torch.cat([part.labels for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return self.targets[self.positions]

    def select(self, which: Tensor) -> Samples:
        """The examples at ``which`` (int64 indices or a bool mask over the N), sharing the same memory."""
        return Samples(self.inputs, self.targets, self.positions[which])

    def counts(self, num_classes: int) -> Tensor:
        """(K,) int64: examples of each class."""
        return torch.bincount(self.labels, minlength=num_classes)


@settings
class Sound:
    """How sounds become spectrograms: resampled to ``rate`` a second, cut or padded to ``seconds``."""

    rate: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Dataset:
    """What there is to learn, read and checked.

    Attributes:
        train, test: uint8 or float32 inputs of one shape. Test data decides nothing.
        classes: the K class names; a label is an index into them.
        mean, std: of each channel, after uint8 is scaled to 0..1. What normalises the inputs.
        fingerprint: SHA-256 of all inputs and labels, for a result's provenance.
        sound: how sounds became inputs; None for all else.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    sound: Sound | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one example."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width


Runs = tuple[tuple[int, int], ...]
"""Sorted indices as half-open runs: 0, 1, 2, 5 is ((0, 3), (5, 6))."""


@dataclass(frozen=True)
class Cut:
    """Which part of a model is held. Small, hashable plain data; made by ``Anatomy.cut``.

    Attributes:
        kept: the channels held of each group that is not held whole, by the group's name.
        classes: the classes whose rows of the classifier are held, sorted; None for all.
        other: the part has one more row, after those of its classes: "none of mine". It is the
            part's own, and folded away when the part is put back.
    """

    kept: tuple[tuple[str, Runs], ...] = ()
    classes: tuple[int, ...] | None = None
    other: bool = False

    def header(self) -> dict[str, Any]:
        """The cut as JSON knows it."""
        kept = {name: [list(run) for run in runs] for name, runs in self.kept}
        classes = None if self.classes is None else list(self.classes)
        return {"kept": kept, "classes": classes, "other": self.other}

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Cut:
        """The cut that ``header()`` came from. Whether it fits a model, ``Anatomy.part`` checks.

        Raises:
            CutError: it is no cut's header.
        """
        try:
            kept = tuple(
                (str(name), tuple((int(start), int(stop)) for start, stop in runs))
                for name, runs in header["kept"].items()
            )
            classes = header["classes"]
            return cls(
                kept, None if classes is None else tuple(int(c) for c in classes), bool(header["other"])
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CutError(f"not the header of a cut: {type(error).__name__}: {error}") from error


TaskKind = Literal[
    "train", "adopt", "evaluate", "share", "lend", "restat", "refit", "collect", "remember", "choose"
]


@dataclass(frozen=True)
class Task:
    """What a site is asked to do.

    ``train``     from the parameters in ``blob`` (or, if None, from what the site holds) by ``recipe``; the
                  site then holds the result, and sends it back if ``reply``
    ``adopt``     hold the parameters in ``blob``
    ``evaluate``  classify the test part with the parameters in ``blob`` (or with what the site holds)
    ``share``     send up as much of the training part as ``share`` says
    ``lend``      keep the samples in ``blob``, which are other sites', as examples of "none of mine"
    ``restat``    estimate the batch-norm statistics of the parameters in ``blob`` anew, and send them back
    ``refit``     fit the classifier alone, on the features that the rest gives, and send all back: by
                  ``recipe``, or by ``ridge`` regression
    ``collect``   send up what the site holds
    ``remember``  set aside a copy of what the site holds
    ``choose``    hold (1 - a) times what was remembered in call ``since`` plus a times what is held, with
                  that a of ``mixtures`` which does best on the examples that the site held out (a = 0 is
                  always one; a site that has held nothing out takes the largest, and one that was away in
                  call ``since`` takes what is held). An a is safe if it gets no fewer right than what was
                  remembered in call ``baseline``; by default that is ``since``

    With a ``cut``, parameters are those of the part that it holds. If the part has an "other" output, what
    the site was lent trains it, and so do ``outliers`` times as many examples as it has, made from its own.

    With a ``statistic``, the answer to ``train`` carries that too.

    ``call`` counts the calls of a run: doing the same task of the same call again gives the same answer,
    whatever happened in between.
    """

    kind: TaskKind
    call: int
    seed: int
    blob: Blob | None = None
    recipe: Recipe | None = None
    cut: Cut | None = None
    reply: bool = True
    share: Share | None = None
    ridge: Ridge | None = None
    since: int = 0
    mixtures: tuple[float, ...] = ()
    baseline: int = 0
    outliers: float = 0.0
    statistic: Statistic | None = None

    def header(self) -> dict[str, Any]:
        """All but the parameters, as JSON knows it."""
        return {
            "kind": self.kind,
            "call": self.call,
            "seed": self.seed,
            "recipe": _flat(self.recipe),
            "cut": None if self.cut is None else self.cut.header(),
            "reply": self.reply,
            "share": _flat(self.share),
            "ridge": _flat(self.ridge),
            "since": self.since,
            "mixtures": list(self.mixtures),
            "baseline": self.baseline,
            "outliers": self.outliers,
            "statistic": _flat(self.statistic),
        }


def _flat(settings: object | None) -> dict[str, Any] | None:
    """A dataclass of numbers and texts; ``asdict`` takes ten times as long, and every answer asks for two."""
    return None if settings is None else dict(vars(settings))


@dataclass(frozen=True)
class Cost:
    """What a task cost the site that did it.

    Multiply-adds are those of convolutions and matrix products; one training example costs its forward and
    its backward pass. ``macs_per_example`` and ``parameters`` are those of the network that the task trained,
    its forward pass alone; 0 where it trained none.
    """

    train_macs: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    macs_per_example: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class Update:
    """What a site answers.

    Attributes:
        blob: parameters (train, collect) or samples (share), opened when they are asked for. A statistic
            lies beside the parameters, under names that begin with a dot, as no parameter's does.
        counts: (K) training examples of each class that the answer rests on.
        metrics: ``losses`` (mean of each epoch) after training; ``confusion`` (K x K, rows are the true
            classes) and ``loss`` after evaluating; after choosing, the ``mixture`` chosen, and the
            ``accuracies`` of the ``mixtures`` on as many examples as were ``held_out``.
    """

    site: str
    kind: str
    blob: Blob | None
    counts: tuple[int, ...]
    metrics: dict[str, Any]
    cost: Cost

    @property
    def examples(self) -> int:
        """How many training examples the answer rests on."""
        return sum(self.counts)

    @property
    def params(self) -> Params:
        """The parameters, read anew each time; nothing keeps them in memory but the caller."""
        return self._sent.open(lambda name: not name.startswith("."))

    @property
    def statistics(self) -> Params:
        """The statistic that was asked for: parameter -> tensor. Read anew each time, as ``params`` is."""
        found = self._sent.open(lambda name: name.startswith("."))
        return {name.split(".", 2)[-1]: value for name, value in found.items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of one parameter (all of it where it has no dimensions), without reading the others."""
        return self._sent.rows(name, start, stop)

    @property
    def _sent(self) -> Blob:
        if self.blob is None:
            raise ValueError(f"{self.site}'s answer to {self.kind} carries no parameters")
        return self.blob

    def header(self) -> dict[str, Any]:
        """All but the tensors, as JSON knows it."""
        return {
            "site": self.site,
            "kind": self.kind,
            "counts": list(self.counts),
            "metrics": self.metrics,
            "cost": _flat(self.cost),
        }

    @classmethod
    def of(cls, header: dict[str, Any], blob: Blob | None) -> Update:
        """The update that ``header()`` and ``blob`` came from."""
        return cls(
            site=header["site"],
            kind=header["kind"],
            blob=blob,
            counts=tuple(header["counts"]),
            metrics=header["metrics"],
            cost=Cost(**header["cost"]),
        )


@dataclass(frozen=True)
class Absence:
    """A site that did not answer a task, or not with anything that can be used, and why."""

    site: str
    why: str


Progress = Callable[[str, int, int, float, int], None]
"""Told of a training site's steps: site, steps done, steps in all, loss of the last one, examples so far."""


class Fleet(Protocol):
    """Where the sites are: the only seam between a method and machines."""

    def names(self) -> tuple[str, ...]:
        """The sites, in the fixed order in which sums run."""
        ...

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        """Has each named site do its task, and yields the answers as they arrive, in any order.

        A site that is lost on the way, or does not answer in time, is an ``Absence`` in place of its answer.

        Args:
            tasks: site -> what it is asked.
            call: all that was asked in the same call, if some of it was answered before the run was stopped.
        """
        ...
