"""The status of a fleet: JSON files in the folder ``status`` of the fleet's folder, for other programs.

Each file has one writer, which replaces it atomically: a reader never finds half a file. A file that a power
failure has emptied counts as absent; its writer writes it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from sheaf.core.atomic_io import write
from sheaf.runtime.time_record import TimeRecord

FOLDER = "status"

CONNECTED = 10.0
"""Seconds since a device's last heartbeat up to which it counts as connected."""

State = Literal["waiting", "training", "done", "absent", "refused"]


class Presence(BaseModel):
    """The devices that have connected (``presence.json``, by the cloud's server).

    Attributes:
        started: when the server started; this and all other times are in seconds since 1970.
        written: when the file was written, every ``server_presence.PERIOD`` seconds.
        heard: device -> its last heartbeat, also of devices that are no longer connected.
    """

    started: float
    written: float
    heard: dict[str, float] = Field(default_factory=dict)


class SiteStatus(BaseModel):
    """The state of one site in a run.

    Attributes:
        state: ``waiting`` for its answer; ``training``; ``done``; ``absent`` from its latest call; its answer
            was ``refused``.
        call: number of its latest call, from 1; 0 if it was absent at the start.
        since: when it entered the state.
        done, steps: training steps done, and in total; 0 before the first.
        loss: of the latest training step; None before the first, and if it is not finite.
        why: reason of the absence or the refusal.
    """

    state: State = "waiting"
    call: int = 0
    since: float = 0.0
    done: int = 0
    steps: int = 0
    loss: float | None = None
    why: str = ""


class Measurement(BaseModel):
    """The accuracies of one stage of one round, on the test examples of each site's own classes.

    Attributes:
        stage, round, reference: as in ``Row``.
        cloud: accuracy of the cloud's model; None if it was not measured.
        edges: lowest, mean and highest accuracy of the edges; None if none was measured.
        count: number of measured edges.
    """

    stage: str
    round: int
    reference: bool
    cloud: float | None = None
    edges: tuple[float, float, float] | None = None
    count: int = 0


class CallLoss(BaseModel):
    """The losses of the last training steps of one call.

    Attributes:
        call: number of the call, from 1.
        at_cloud: whether the cloud trained; otherwise the edges did.
        losses: lowest, median and highest loss of the sites.
    """

    call: int
    at_cloud: bool
    losses: tuple[float, float, float]


class Skip(BaseModel):
    """A call that continued without one of its sites.

    Attributes:
        site: the site's name.
        call: number of the call, from 1; 0 at the start of the run.
        kind: kind of its tasks; empty at the start of the run.
        at: when it was skipped.
        why: reason of the absence or the refusal.
    """

    site: str
    call: int
    kind: str
    at: float
    why: str


class RunStatus(BaseModel):
    """The fleet's current or latest run (``run.json``, by the process of the run).

    Attributes:
        run: the run's folder.
        title: method, data and model.
        began: when the process started.
        written: when the file was written; until the end, every LONGEST + INTERVAL of ``run_record``.
        ended: when the run ended; None while it runs.
        error: why it failed; empty if it did not.
        call: number of the latest call with open tasks, from 1; 0 before the first.
        kind: kind of the tasks of that call; empty before the first.
        call_began: when that call began.
        sites: site -> its state.
        measured: the latest measurements, in order.
        losses: the latest trainings, in order.
        skipped: the latest absences and refusals, in order.
        notes: notes for the user, in order.
        time: when the sites worked, the latest tasks of at most 20 devices; None before the first answers.
    """

    run: str
    title: str
    began: float
    written: float
    ended: float | None = None
    error: str = ""
    call: int = 0
    kind: str = ""
    call_began: float = 0.0
    sites: dict[str, SiteStatus] = Field(default_factory=dict)
    measured: list[Measurement] = Field(default_factory=list)
    losses: list[CallLoss] = Field(default_factory=list)
    skipped: list[Skip] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    time: TimeRecord | None = None


class MeasuredModel(BaseModel):
    """The latest model of a device that was measured on test examples.

    Attributes:
        run: name of the run's folder.
        stage: the stage of the run at which it was measured.
        at: when it was measured.
        accuracy: on the test examples of the device's own classes.
    """

    run: str
    stage: str
    at: float
    accuracy: float


class CurrentModel(BaseModel):
    """The model that a device uses. A rollback on the device is not known here before its next run.

    Attributes:
        run: name of the folder of the run that it comes from.
        at: when that run ended.
        held_out: accuracy on the device's held-out samples, the latest measurement; None if it has none.
    """

    run: str
    at: float
    held_out: float | None = None


class DeviceRecord(BaseModel):
    """The models of one device.

    Attributes:
        measured: None before its first measurement.
        current: None before the end of its first run.
        kept_out: why the model of its latest run did not replace the current one; empty if it did.
    """

    measured: MeasuredModel | None = None
    current: CurrentModel | None = None
    kept_out: str = ""


class DeviceRecords(BaseModel):
    """The models of each device (``devices.json``, by the process of a run)."""

    devices: dict[str, DeviceRecord] = Field(default_factory=dict)


class FinishedRun(BaseModel):
    """One run of the past.

    Attributes:
        run: the run's folder.
        title: method, data and model.
        began, ended: when its process started and ended; of a resumed run, the last process.
        error: why it failed; empty if it did not.
        devices: number of devices that answered a call.
        skipped: number of devices that were skipped in a call.
        kept_out: number of devices that keep their current model rather than the run's.
        cloud: accuracy of the cloud's last measured model; None if none was measured.
        edges: lowest, mean and highest accuracy of the edges' last measured models; None likewise.
    """

    run: str
    title: str
    began: float
    ended: float
    error: str = ""
    devices: int = 0
    skipped: int = 0
    kept_out: int = 0
    cloud: float | None = None
    edges: tuple[float, float, float] | None = None


class RunHistory(BaseModel):
    """The latest runs on the fleet, in order (``history.json``, by the process of a run)."""

    runs: list[FinishedRun] = Field(default_factory=list)


FILES: dict[type[BaseModel], str] = {
    Presence: "presence.json",
    RunStatus: "run.json",
    DeviceRecords: "devices.json",
    RunHistory: "history.json",
}

_File = TypeVar("_File", bound=BaseModel)


def status_file(fleet: Path, kind: type[BaseModel]) -> Path:
    """Return the path of the status file of this kind in the fleet's folder ``fleet``."""
    return fleet / FOLDER / FILES[kind]


def read_status(fleet: Path, kind: type[_File]) -> _File | None:
    """Return the content of a status file; None if it is absent, empty, or of another version of sheaf."""
    try:
        return kind.model_validate_json(status_file(fleet, kind).read_bytes())
    except (OSError, ValidationError):
        return None


def write_status(fleet: Path, kind: type[BaseModel], content: bytes, synced: bool = True) -> None:
    """Replace a status file atomically; with fsync if ``synced``."""
    path = status_file(fleet, kind)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write(path, content, synced=synced)
