"""The result of a run, as ``result.json`` stores it."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import RunFolderError
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.time_record import TimeRecord

EACH = 20
"""Most sites for which a curve has the losses of each. For more sites it has minimum, median and maximum."""


@settings
class Choice:
    """An edge's decision to hold (1 - ``mixture``) x its old model + ``mixture`` x the received model.

    The accuracies are means over the classes of the edge's held-out examples. They are None if it has none.

    Attributes:
        mixture: the chosen weight of the received model, from 0 to 1.
        had: accuracy of the old model; None also if the edge was absent when it should have saved it.
        got: accuracy of the received model.
        chosen: accuracy of the chosen mixture.
        examples: number of held-out examples.
    """

    mixture: float
    had: float | None
    got: float | None
    chosen: float | None
    examples: int

    @classmethod
    def of(cls, update: Update) -> Choice:
        """Return the decision in the answer to a ``choose`` task."""
        metrics = update.metrics
        accuracies = dict(zip(metrics["mixtures"], metrics["accuracies"], strict=True))
        return cls(
            mixture=metrics["mixture"],
            had=accuracies.get(0.0),
            got=accuracies.get(1.0),
            chosen=accuracies.get(metrics["mixture"]),
            examples=metrics["held_out"],
        )

    def __str__(self) -> str:
        if self.mixture in (0.0, 1.0):
            return "kept" if self.mixture == 0 else "taken"
        return f"mixed {self.mixture:g}"


@settings
class Row:
    """The measurement of one site's model at one stage of a run.

    A site's own classes are those of its training examples; the cloud's own classes are all.

    Attributes:
        site: the site's name.
        stage: the stage, as the method names it.
        round: number of the round, from 1.
        reference: the model is one that the method is compared with, not one of the method's own.
        accuracy: on the test examples of the site's own classes.
        precision: likewise; the mean over classes, weighted by their test examples.
        recall: likewise.
        f1: likewise.
        macro_f1: likewise; the unweighted mean over classes.
        accuracy_all: on the test examples of all classes; None if a device has no test examples of the
            classes that it does not train on.
        held_out: accuracy on the site's held-out examples, the mean over their classes; None if it has none.
        loss: mean cross-entropy on all test examples; None if it is not finite.
        examples: number of test examples of the site's own classes.
        confusion: (K, K) confusion matrix on all test examples; rows are true classes.
        choices: the edge's decisions that led to this model, in order.
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
    accuracy_all: float | None
    held_out: float | None
    loss: float | None
    examples: int
    confusion: list[list[int]]
    choices: tuple[Choice, ...] = ()


@settings
class WholeModel:
    """The size of the whole model.

    Attributes:
        macs_per_example: multiply-adds of one forward pass.
        train_macs_per_example: multiply-adds of one forward and backward pass.
        parameters: number of parameters.
    """

    macs_per_example: int
    train_macs_per_example: int
    parameters: int


@settings
class Refusal:
    """An absence or a refused answer.

    Attributes:
        call: number of the call, from 1; 0: the device took no part in the run.
        site: the site's name.
        why: the reason, for the user.
    """

    call: int
    site: str
    why: str


@settings
class Curve:
    """The training losses of one call. A loss that is not finite is None.

    Attributes:
        call: number of the call, from 1.
        stage: stage of the next measurement, ``""`` if there is none.
        round: round of the next measurement, 0 if there is none.
        reference: whether the next measurement is a reference.
        sites: number of sites that trained.
        losses: site -> mean loss of each epoch; empty for more than ``EACH`` sites.
        spread: (minimum, median, maximum) of the sites' losses in each epoch; empty for at most ``EACH``
            sites.
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
    """The sub-model of one or more sites at the end of the run.

    Attributes:
        sites: names of the sites.
        kept: channel group -> half-open intervals of the channels in the sub-model, if these are not all.
        classes: sorted indices of the classes in the sub-model's classifier; None for all.
        other: the classifier has one more row, for "none of these classes".
    """

    sites: list[str]
    kept: dict[str, list[tuple[int, int]]]
    classes: list[int] | None
    other: bool


@settings
class CutsRecord:
    """The edges' sub-models at the end of the run.

    Attributes:
        groups: channel group -> number of its channels in the whole model, in the order of depth.
        parts: the sub-models and the edges that hold them.
    """

    groups: dict[str, int]
    parts: list[PartRecord]


@settings
class Replacement:
    """A real device's decision whether the run's model replaces its current one; see ``[edge] guard``.

    Attributes:
        replaced: whether it does.
        held_out: accuracy of the run's model on the device's held-out samples, the mean over their classes;
            None: not measured.
        before: accuracy of the model that was current, on the same samples; None: not compared.
        samples: number of these samples.
        why: why the current model stays, or was not compared; empty otherwise.
    """

    replaced: bool
    held_out: Annotated[float, Field(ge=0, le=1)] | None = None
    before: Annotated[float, Field(ge=0, le=1)] | None = None
    samples: Annotated[int, Field(ge=0)] = 0
    why: Annotated[str, Field(max_length=1000)] = ""


@settings
class Result:
    """The result of a run.

    Attributes:
        schema_version: version of this schema.
        method: name of the method.
        classes: the K class names.
        split: edge -> number of its training examples of each class.
        rows: the measurements, in order.
        whole: the size of the whole model.
        cost: site -> its cost.
        refused: absences and refused answers, in order.
        curves: training losses by call.
        cuts: the edges' sub-models; None if every edge holds the whole model.
        replacements: real device -> its latest decision on the run's model.
        weights: site -> path of its final parameters, relative to the run's folder.
        on_cloud: on a real fleet, the edges' final models on the cloud's test data of all classes.
        time: when the sites worked: virtual with ``fleet.devices``, measured on a real fleet; None: not
            recorded.
        provenance: commit, settings, versions, hardware, data fingerprint and seed.
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
    replacements: dict[str, Replacement] = field(default_factory=dict)
    weights: dict[str, str]
    on_cloud: list[Row] = field(default_factory=list)
    time: TimeRecord | None = None
    provenance: dict[str, Any]

    def final(self, site: str) -> Row | None:
        """Return the last measurement of a site's own model, without references, or None."""
        return next((row for row in reversed(self.rows) if row.site == site and not row.reference), None)

    def write(self, folder: Path) -> None:
        """Write ``result.json``, atomically and durably."""
        write_durably(folder / "result.json", TypeAdapter(Result).dump_json(self, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Read a run's ``result.json``.

        Raises:
            RunFolderError: the file is missing, unreadable or of another schema.
        """
        path = folder / "result.json"
        try:
            return TypeAdapter(Result).validate_json(path.read_bytes())
        except FileNotFoundError as error:
            hint = f"; resume it with: sheaf run --resume {folder}" if (folder / "journal").exists() else ""
            raise RunFolderError(f"{folder} holds no finished run (no result.json){hint}") from error
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RunFolderError(
                f"{path} is not a result of this version of sheaf: {where}: {first['msg']}"
            ) from error
