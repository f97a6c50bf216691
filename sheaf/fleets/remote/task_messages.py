"""The headers of tasks and updates between cloud and device, and their strict validation.

A device's own limits are in ``device_limits.py``.
"""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError, FleetError
from sheaf.core.task import Task, TaskKind, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.messages import STRICT, Digest, NonNegativeInt, validate
from sheaf.runtime.result import Replacement

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

RANGES: dict[str, Any] = {
    "call": Annotated[int, Field(ge=1, lt=10**6)],
    "seed": NonNegativeInt,
    "cut": dict[str, Any] | None,
    "blocks": Annotated[tuple[dict[str, Any], ...], Field(max_length=100_000)],
    "since": Annotated[int, Field(ge=0, lt=10**6)],
    "baseline": Annotated[int, Field(ge=0, lt=10**6)],
    "mixtures": Annotated[tuple[Fraction, ...], Field(max_length=1000)],
    "outliers": Annotated[float, Field(ge=0, le=100)],
}
"""Field of ``Task`` -> its type with the allowed range, where the type alone is too wide."""

OMITTED: dict[str, Any] = {"coding": None, "blocks": ()}
"""Field of ``Task`` -> its value where the header omits it."""

_TASK_FIELDS: dict[str, Any] = {
    name: hint for name, hint in typing.get_type_hints(Task).items() if name != "blob"
} | RANGES
TaskHeader: Any = create_model(  # type: ignore[call-overload]  # the fields of Task
    "TaskHeader",
    __config__=ConfigDict(**STRICT, allow_inf_nan=False),
    **{name: (hint, OMITTED.get(name, ...)) for name, hint in _TASK_FIELDS.items()},
)


class Measured(BaseModel):
    """A ``MeasuredLogits``."""

    model_config = STRICT
    model: Digest
    inputs: Literal["random"]
    device: Annotated[str, Field(max_length=20)]
    columns: Annotated[int, Field(ge=1, le=2**20)]
    values: Annotated[str, Field(max_length=2**23)]


class Metrics(BaseModel):
    """The metrics of an update; losses may be infinite or NaN, counts may not."""

    model_config = STRICT
    losses: list[float] | None = None
    confusion: list[list[NonNegativeInt]] | None = None
    loss: float | None = None
    measured: Measured | None = None
    held_out: NonNegativeInt | Fraction | None = None
    mixture: float | None = None
    mixtures: list[float] | None = None
    accuracies: list[Fraction] | None = None
    replacement: Replacement | None = None


class CostHeader(BaseModel):
    """A ``Cost``."""

    model_config = STRICT
    train_macs: NonNegativeInt
    seconds: NonNegativeFloat
    peak_memory_bytes: NonNegativeInt
    macs_per_example: NonNegativeInt
    parameters: NonNegativeInt


class UpdateHeader(BaseModel):
    """An ``Update`` without its tensors."""

    model_config = STRICT
    site: str
    kind: str
    counts: list[NonNegativeInt]
    metrics: Metrics
    cost: CostHeader


def decode_task(header: Any, blob: Blob | None) -> Task:
    """Return the task with this ``header()`` and these parameters.

    Raises:
        FleetError: a key is unknown or missing, or a value has a wrong type or is out of range.
    """
    parsed = validate(TaskHeader, header)
    values = {field.name: getattr(parsed, field.name) for field in fields(Task) if field.name in _TASK_FIELDS}
    try:
        cut = None if values["cut"] is None else Cut.of(values["cut"])
        blocks = tuple(map(Cut.of, values["blocks"]))
    except CutError as error:
        raise FleetError(str(error)) from error
    return Task(**(values | {"blob": blob, "cut": cut, "blocks": blocks}))


def decode_update(header: Any, blob: Blob | None, site: str, kind: TaskKind, classes: int) -> Update:
    """Return the update with this ``header()`` and these tensors.

    Raises:
        FleetError: the header is malformed, or is not an update of ``site`` for a task of ``kind`` over
            ``classes`` classes.
    """
    parsed = validate(UpdateHeader, header)
    if (parsed.site, parsed.kind) != (site, kind):
        raise FleetError(f"update is of {parsed.site!r} for {parsed.kind!r}, expected {site!r} for {kind!r}")
    if len(parsed.counts) != classes:
        raise FleetError(f"update has counts of {len(parsed.counts)} classes, expected {classes}")
    if kind == "evaluate":
        confusion = parsed.metrics.confusion or []
        if len(confusion) != classes or any(len(row) != classes for row in confusion):
            raise FleetError(f"confusion matrix is not {classes} x {classes}")
        if parsed.metrics.loss is None:
            raise FleetError("evaluation has no loss")
    return Update.of(parsed.model_dump(exclude_none=True), blob)
