"""A run's result: what is written to ``result.json`` and read back from it."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import RunFolderError
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import CLOUD
from sheaf.runtime.costs import SiteCost
from sheaf.training.metrics import scores

logger = logging.getLogger("sheaf")

EACH = 20
"""Up to so many sites, a curve holds each one's losses; of more, the lowest, the median and the highest."""


@settings
class Choice:
    """What a guarded edge decided: to hold (1 - ``mixture``) of what it had plus ``mixture`` of what it got.

    ``had``, ``got`` and ``chosen`` are the accuracies of these on its ``examples`` held-out examples, means
    over the classes that there are; None where it had held none out and took what it got, and ``had``
    also where it was away when it should have set that aside: it then took what it got.
    """

    mixture: float
    had: float | None
    got: float | None
    chosen: float | None
    examples: int

    @classmethod
    def of(cls, update: Update) -> Choice:
        """The decision that a ``choose`` answer tells of."""
        told = update.metrics
        accuracies = dict(zip(told["mixtures"], told["accuracies"], strict=True))
        return cls(
            mixture=told["mixture"],
            had=accuracies.get(0.0),
            got=accuracies.get(1.0),
            chosen=accuracies.get(told["mixture"]),
            examples=told["held_out"],
        )

    def __str__(self) -> str:
        if self.mixture in (0.0, 1.0):
            return "kept" if self.mixture == 0 else "taken"
        return f"mixed {self.mixture:g}"


@settings
class Row:
    """How good one site's model was at one stage of a method, or (``reference``) of what it is compared with.

    ``accuracy``, ``precision``, ``recall``, ``f1`` (means weighted by support) and ``macro_f1`` are on the
    test examples of the site's own classes (the cloud's own are all), ``accuracy_all`` is on all classes, and
    ``held_out`` on the examples the site kept back for its decisions, the mean over their classes (None where
    it kept none). ``examples`` counts the test examples of the own classes. ``loss`` is the mean
    cross-entropy on all test examples (None where it is not finite). ``choices`` are what a guarded edge
    decided just before, in order.
    """

    site: str
    stage: str
    round: int
    reference: bool
    accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    accuracy_all: float
    held_out: float | None
    loss: float | None
    examples: int
    confusion: list[list[int]]
    choices: tuple[Choice, ...] = ()


@settings
class WholeModel:
    """Multiply-adds of one example in the whole model, forward and in training; how many numbers it holds."""

    macs_per_example: int
    train_macs_per_example: int
    parameters: int


@settings
class Refusal:
    """An answer that was left out."""

    call: int
    site: str
    why: str


@settings
class Curve:
    """How the loss went in one call that trained.

    ``stage``, ``round`` and ``reference`` are those of the measurement that came next (``""``, 0 and False
    where none did), ``sites`` is how many trained. ``losses`` is the mean loss of each epoch at each site, if
    these are at most ``EACH``; otherwise ``spread`` is the lowest, the median and the highest of each epoch.
    A loss that is not finite is None.
    """

    call: int
    stage: str
    round: int
    reference: bool
    sites: int
    losses: dict[str, list[float | None]]
    spread: list[tuple[float | None, float | None, float | None]]


@settings
class PartRecord:
    """What these sites held of the model at the end: see ``types.Cut``."""

    sites: list[str]
    kept: dict[str, list[tuple[int, int]]]
    classes: list[int] | None
    other: bool


@settings
class CutsRecord:
    """Which part each edge held at the end; ``groups`` is the width of each group of channels, by depth."""

    groups: dict[str, int]
    parts: list[PartRecord]


@settings
class Result:
    """Everything that a run found out.

    ``split`` is the training examples of each class at each site; ``cuts`` is None where every edge holds the
    whole model; ``provenance`` is design law 10: commit, settings, versions, hardware, data fingerprint,
    seed.
    """

    schema_version: Literal[1] = 1
    method: str
    classes: list[str]
    split: dict[str, list[int]]
    rows: list[Row]
    whole: WholeModel
    cost: dict[str, SiteCost]
    refused: list[Refusal]
    curves: list[Curve] = field(default_factory=list)
    cuts: CutsRecord | None = None
    weights: dict[str, str]
    provenance: dict[str, Any]

    def final(self, site: str) -> Row | None:
        """The site's last row that is no reference: what it ended with."""
        return next((row for row in reversed(self.rows) if row.site == site and not row.reference), None)

    def write(self, folder: Path) -> None:
        """Writes ``result.json``, wholly or not at all."""
        content = TypeAdapter(Result).dump_python(self, mode="json")
        write_durably(folder / "result.json", json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Reads a run's ``result.json``.

        Raises:
            RunFolderError: it is not there, or not of this schema.
        """
        path = folder / "result.json"
        try:
            return TypeAdapter(Result).validate_json(path.read_bytes())
        except FileNotFoundError as error:
            hint = f"; go on with: sheaf run --resume {folder}" if (folder / "journal").exists() else ""
            raise RunFolderError(f"{folder} holds no finished run (no result.json){hint}") from error
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RunFolderError(
                f"{path} is not a result that this sheaf reads: {where}: {first['msg']}"
            ) from error


class Log:
    """What a method reports to: ``log("after update", fleet.evaluate())`` makes a row for each answer."""

    def __init__(self, told: Callable[[Row], None] | None = None) -> None:
        self.rows: list[Row] = []
        self.curves: list[Curve] = []
        self._told = told
        self._measured = 0

    def __call__(
        self,
        stage: str,
        evaluated: Iterable[Update],
        round: int = 1,
        reference: bool = False,
        chosen: Iterable[Iterable[Update]] = (),
    ) -> None:
        """Adds a row for each site's evaluation.

        Args:
            reference: this is no step of the method itself.
            chosen: the answers to each ``fleet.choose`` by which edges decided what is measured.
        """
        choices: dict[str, tuple[Choice, ...]] = {}
        for answers in chosen:
            for update in answers:
                choices[update.site] = (*choices.get(update.site, ()), Choice.of(update))
        for update in evaluated:
            confusion = torch.tensor(update.metrics["confusion"])
            own = None if update.site == CLOUD else torch.tensor(update.counts) > 0
            on_own, on_all = scores(confusion, own), scores(confusion)
            row = Row(
                site=update.site,
                stage=stage,
                round=round,
                reference=reference,
                **asdict(on_own),
                accuracy_all=on_all.accuracy,
                held_out=update.metrics.get("held_out"),
                loss=update.metrics["loss"] if math.isfinite(update.metrics["loss"]) else None,
                confusion=update.metrics["confusion"],
                choices=choices.get(update.site, ()),
            )
            self.rows.append(row)
            logger.info("%s %s: %.4f, on all classes %.4f", row.site, stage, row.accuracy, row.accuracy_all)
            if self._told is not None:
                self._told(row)
        self.curves[self._measured :] = [
            replace(curve, stage=stage, round=round, reference=reference)
            for curve in self.curves[self._measured :]
        ]
        self._measured = len(self.curves)

    def trained(self, call: int, updates: Sequence[Update]) -> None:
        """Adds the curve of a call that trained; the next measurement says which step it led to."""
        losses = {update.site: [_short(loss) for loss in update.metrics["losses"]] for update in updates}
        few = len(losses) <= EACH
        self.curves.append(
            Curve(
                call=call,
                stage="",
                round=0,
                reference=False,
                sites=len(losses),
                losses=losses if few else {},
                spread=[] if few else [_spread(epoch) for epoch in zip_longest(*losses.values())],
            )
        )


def _short(loss: float) -> float | None:
    return float(f"{loss:.4g}") if math.isfinite(loss) else None


def _spread(epoch: Iterable[float | None]) -> tuple[float | None, float | None, float | None]:
    finite = [loss for loss in epoch if loss is not None]
    return (min(finite), statistics.median(finite), max(finite)) if finite else (None, None, None)
