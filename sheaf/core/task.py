"""The messages between a method and its sites: a task, and the update that answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe, Ridge, Share, Statistic
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params

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
