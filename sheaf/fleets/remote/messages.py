"""What comes over a real wire, checked before anything is done with it.

Headers are JSON, and read strictly: an unknown key, another type or a value out of range is refused. Nothing
is unpickled.
"""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError, FleetError
from sheaf.core.task import Task, TaskKind, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import encode_header

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
STRICT = ConfigDict(extra="forbid", strict=True)

NARROWED: dict[str, Any] = {
    "call": Annotated[int, Field(ge=1, lt=10**6)],
    "seed": Whole,
    "cut": dict[str, Any] | None,
    "since": Annotated[int, Field(ge=0, lt=10**6)],
    "baseline": Annotated[int, Field(ge=0, lt=10**6)],
    "mixtures": Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=1000)],
    "outliers": Annotated[float, Field(ge=0, le=100)],
}
"""Fields of a task whose range says more than their type."""

_TASK: dict[str, Any] = {
    name: hint for name, hint in typing.get_type_hints(Task).items() if name != "blob"
} | NARROWED
TaskHeader: Any = create_model(  # type: ignore[call-overload]  # its fields are those of Task
    "TaskHeader",
    __config__=ConfigDict(**STRICT, allow_inf_nan=False),
    **{name: (hint, ...) for name, hint in _TASK.items()},
)


class Metrics(BaseModel):
    """What a site may have measured; a loss may be no number, a count may not."""

    model_config = STRICT
    losses: list[float] | None = None
    confusion: list[list[Whole]] | None = None
    loss: float | None = None
    held_out: Whole | Annotated[float, Field(ge=0, le=1)] | None = None
    mixture: float | None = None
    mixtures: list[float] | None = None
    accuracies: list[Annotated[float, Field(ge=0, le=1)]] | None = None


class CostHeader(BaseModel):
    """A ``Cost``."""

    model_config = STRICT
    train_macs: Whole
    seconds: Amount
    peak_memory_bytes: Whole
    macs_per_example: Whole
    parameters: Whole


class UpdateHeader(BaseModel):
    """An ``Update``, but for its tensors."""

    model_config = STRICT
    site: str
    kind: str
    counts: list[Whole]
    metrics: Metrics
    cost: CostHeader


def decode_task(header: Any, blob: Blob | None) -> Task:
    """The task whose ``header()`` came over the wire, with its parameters.

    Raises:
        FleetError: a key is unknown or missing, or a value is of another type or out of range.
    """
    read = check(TaskHeader, header)
    given = {field.name: getattr(read, field.name) for field in fields(Task) if field.name in _TASK}
    try:
        cut = None if given["cut"] is None else Cut.of(given["cut"])
    except CutError as error:
        raise FleetError(str(error)) from error
    return Task(**(given | {"blob": blob, "cut": cut}))


def decode_update(header: Any, blob: Blob | None, site: str, kind: TaskKind, classes: int) -> Update:
    """What ``site`` answered to a task of ``kind``, whose ``header()`` came over the wire.

    Raises:
        FleetError: it is no answer of that site to such a task, over so many classes.
    """
    read = check(UpdateHeader, header)
    if (read.site, read.kind) != (site, kind):
        raise FleetError(f"it answered as {read.site!r} to {read.kind!r} and was asked to {kind}")
    if len(read.counts) != classes:
        raise FleetError(f"it counted {len(read.counts)} classes of {classes}")
    if kind == "evaluate":
        confusion = read.metrics.confusion or []
        if len(confusion) != classes or any(len(row) != classes for row in confusion):
            raise FleetError(f"its confusion matrix is not {classes} x {classes}")
        if read.metrics.loss is None:
            raise FleetError("it measured no loss")
    plain = read.model_dump(exclude_none=True)
    return Update.of(plain, blob)


_M = typing.TypeVar("_M", bound=BaseModel)


def check(model: type[_M], header: Any) -> _M:
    """``header``, what JSON holds, as a ``model``.

    Raises:
        FleetError: it is none; says which key is wrong.
    """
    try:
        text = encode_header(header) if isinstance(header, dict) else b"null"
        return model.model_validate_json(text, strict=True)  # nested settings too
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the message"
        raise FleetError(f"malformed message: {where}: {first['msg']}") from error


class DataForm(BaseModel):
    """How a device is to bring its data into the fleet's one shape; see ``DataSettings``."""

    model_config = STRICT
    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | None = None
    channels: Annotated[int, Field(ge=1, le=3)] | None = None
    rate: Annotated[int, Field(ge=2000, le=384_000)] | None = None
    seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Setup(BaseModel):
    """What a device is told of a run before its first task.

    Attributes:
        run: tells runs apart; what a device holds, it holds for one run.
        seed: the run's, which decides what the device holds out.
        shape: (C, H, W) of one example.
    """

    model_config = STRICT
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    seed: Whole
    model: Annotated[str, Field(max_length=200)]
    options: dict[str, bool | int | float | str]
    classes: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=100_000)]
    shape: tuple[Whole, Whole, Whole]
    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    held_out: Annotated[float, Field(ge=0, lt=1)]
    form: DataForm


class Present(BaseModel):
    """What a device says of itself: counts and classes, no samples.

    Attributes:
        counts: training examples of each class.
        width: the fraction of the model's width that it can carry.
    """

    model_config = STRICT
    counts: list[Annotated[int, Field(ge=0, le=10**9)]]
    width: Annotated[float, Field(gt=0, le=1)]


class BlobHeader(BaseModel):
    """Tensors that lie at the device: their digest and, of shared samples, that of each chunk."""

    model_config = STRICT
    sha256: Digest
    size: Annotated[int, Field(ge=1)]
    chunks: list[Digest]


class State(BaseModel):
    """How far a device is with what it was asked last."""

    model_config = STRICT
    state: typing.Literal["working", "done", "refused"]
    done: Whole = 0
    steps: Whole = 0
    loss: float | None = None
    examples: Whole = 0
    why: Annotated[str, Field(max_length=1000)] = ""
    answer: dict[str, Any] | None = None
    blob: BlobHeader | None = None


CHUNK = 1 << 18
"""Bytes of a chunk."""

MOST = 128
"""Chunks in one message at most."""


class Put(BaseModel):
    """A piece of tensors on their way down, from byte ``at`` on."""

    model_config = STRICT
    sha256: Digest
    size: Annotated[int, Field(ge=1)]
    at: Whole


class _Waiting(BaseModel):
    """A message whose answer is the ``State`` of what was begun.

    Attributes:
        wait: how many seconds the answer may wait for the end.
        most: how many of the first bytes of the answer's tensors may come with it.
    """

    model_config = STRICT
    wait: Annotated[float, Field(ge=0, le=5)] = 0.0
    most: Annotated[int, Field(ge=0, le=MOST * CHUNK)] = 0


class Begin(_Waiting):
    """The cloud's order to begin something, answered as a ``Look`` at it.

    Attributes:
        ticket: names it, so that asking twice does it once.
        put: the tensors of the task, of which the last piece comes with this message.
    """

    ticket: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,100}$")]
    setup: Setup | None = None
    task: dict[str, Any] | None = None
    put: Put | None = None


class Look(_Waiting):
    """The cloud's question how far the device is."""

    ticket: str
    cancel: bool = False


class Get(BaseModel):
    """The cloud's wish for bytes ``start`` up to ``stop`` (not included) of an answer's tensors."""

    model_config = STRICT
    sha256: Digest
    start: Whole
    stop: Whole
