"""The messages between cloud and device, and their strict validation; see also ``task_messages.py``.

Headers are JSON. An unknown key, a wrong type or a value out of range raises ``FleetError``. Nothing is
unpickled.
"""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sheaf.core.errors import FleetError, SettingError, UnknownNameError
from sheaf.core.wire_format import encode_header

NonNegativeInt = Annotated[int, Field(ge=0, lt=2**63)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
STRICT = ConfigDict(extra="forbid", strict=True)

CHUNK = 1 << 18
"""Size of a chunk, in bytes."""

MAX_CHUNKS = 128
"""Maximum number of chunks in one message."""

_Model = typing.TypeVar("_Model", bound=BaseModel)


def validate(model: type[_Model], header: Any) -> _Model:
    """Return the decoded JSON ``header`` as an instance of ``model``.

    Raises:
        FleetError: the header does not fit the model; the message contains the wrong key.
    """
    try:
        text = encode_header(header) if isinstance(header, dict) else b"null"
        return model.model_validate_json(text, strict=True)  # nested settings too
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the message"
        raise FleetError(f"malformed message: {key}: {first['msg']}") from error
    except (SettingError, UnknownNameError) as error:  # of a plugin
        raise FleetError(f"malformed message: {error}") from error


class DataForm(BaseModel):
    """The input format that a device converts its data to; see ``DataSettings`` for the fields."""

    model_config = STRICT
    label: Annotated[str, Field(max_length=1000)] | None = None
    input: Annotated[str, Field(max_length=1000)] | None = None
    size: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | None = None
    channels: Annotated[int, Field(ge=1, le=3)] | None = None
    bits: Annotated[int, Field(ge=8, le=32)] | None = None
    rate: Annotated[int, Field(ge=2000, le=384_000)] | None = None
    seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Setup(BaseModel):
    """The description of a run that a device receives before its first task.

    Attributes:
        run: identifier of the run, 32 hexadecimal digits; a device keeps its models per run.
        seed: seed of the run; the held-out split of the device depends on it.
        model, options: see ``ModelSettings``.
        classes: class names; a label is an index into them.
        shape: (C, H, W) of one example.
        mean, std: normalisation of each channel.
        held_out: fraction of its examples that a device does not train on, in [0, 1).
        form: input format.
        name: name of the run's folder in the cloud, for lists of models.
        deliver: when the device's current model is replaced; see ``FleetSettings``.
        version: of sheaf on the cloud; the device must have the same one.
    """

    model_config = STRICT
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    seed: NonNegativeInt
    model: Annotated[str, Field(max_length=200)]
    options: dict[str, bool | int | float | str]
    classes: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=100_000)]
    shape: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    held_out: Annotated[float, Field(ge=0, lt=1)]
    form: DataForm
    name: Annotated[str, Field(max_length=300)] = ""
    deliver: Literal["end", "adoptions"] = "end"
    version: Annotated[str, Field(max_length=100)] = ""


class DeviceInfo(BaseModel):
    """A device's reply to ``Setup``: counts, no samples.

    Attributes:
        counts: number of training examples of each class.
        width: fraction of the model's channels that the device can train, in (0, 1].
        memory: available memory, in bytes.
        disk: free space for the device's state, in bytes.
    """

    model_config = STRICT
    counts: list[Annotated[int, Field(ge=0, le=10**9)]]
    width: Annotated[float, Field(gt=0, le=1)]
    memory: NonNegativeInt
    disk: NonNegativeInt


class PlannedTask(BaseModel):
    """A task that the cloud may send later.

    Attributes:
        task: header of the ``Task``.
        size: size of its tensors, in bytes.
    """

    model_config = STRICT
    task: dict[str, Any]
    size: NonNegativeInt


class Refusals(BaseModel):
    """A device's reply to planned tasks: why it would refuse some of them, one line each."""

    model_config = STRICT
    refusals: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=1000)]


class BlobHeader(BaseModel):
    """Tensors that a device has ready for download.

    Attributes:
        sha256: hash of the tensor file.
        size: its size in bytes.
        chunks: hash of each chunk, for samples only.
    """

    model_config = STRICT
    sha256: Digest
    size: Annotated[int, Field(ge=1)]
    chunks: list[Digest]


class State(BaseModel):
    """The state of a device's current operation, the reply to ``Begin`` and ``Poll``.

    Attributes:
        state: ``working``, ``done`` or ``refused``.
        done, steps: training steps completed, and in total.
        loss: loss of the last step.
        examples: number of examples trained on so far.
        reason: why the operation was refused.
        answer: ``DeviceInfo`` after a ``Setup``, ``Refusals`` after planned tasks, the header of an
            ``Update`` after a task.
        blob: tensors of the update.
    """

    model_config = STRICT
    state: typing.Literal["working", "done", "refused"]
    done: NonNegativeInt = 0
    steps: NonNegativeInt = 0
    loss: float | None = None
    examples: NonNegativeInt = 0
    reason: Annotated[str, Field(max_length=1000)] = ""
    answer: dict[str, Any] | None = None
    blob: BlobHeader | None = None


class Put(BaseModel):
    """An upload of one chunk of a tensor file to a device.

    Attributes:
        sha256, size: hash, and size in bytes, of the whole file.
        offset: position of the chunk in the file, in bytes.
    """

    model_config = STRICT
    sha256: Digest
    size: Annotated[int, Field(ge=1)]
    offset: NonNegativeInt


class _LongPoll(BaseModel):
    """A request for a ``State``, with the first bytes of the update's tensors as payload.

    Attributes:
        wait: time that the reply may block for the end of the operation, in [0, 5] seconds.
        max_bytes: maximum size of the payload.
    """

    model_config = STRICT
    wait: Annotated[float, Field(ge=0, le=5)] = 0.0
    max_bytes: Annotated[int, Field(ge=0, le=MAX_CHUNKS * CHUNK)] = 0


class Begin(_LongPoll):
    """Starts an operation: ``setup``, ``planned`` or ``task``.

    Attributes:
        ticket: identifier of the operation; a repeated ``Begin`` does not start it again.
        setup: the run.
        planned: tasks to compare with the device's limits; nothing is computed.
        task: header of the ``Task``.
        put: the parameters of the task; their last chunk is the payload of this message.
    """

    ticket: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,100}$")]
    setup: Setup | None = None
    planned: Annotated[list[PlannedTask], Field(max_length=1000)] | None = None
    task: dict[str, Any] | None = None
    put: Put | None = None


class Poll(_LongPoll):
    """A request for the state of an operation.

    Attributes:
        ticket: identifier of the operation.
        cancel: whether the operation is to be cancelled.
    """

    ticket: str
    cancel: bool = False


class Get(BaseModel):
    """A download of one range of an update's tensor file.

    Attributes:
        sha256: hash of the file.
        start, stop: range in bytes; ``stop`` is exclusive.
    """

    model_config = STRICT
    sha256: Digest
    start: NonNegativeInt
    stop: NonNegativeInt
