"""The state of a fleet at one moment, from the files in its folder. No torch."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from sheaf.core.errors import SheafError
from sheaf.experiments import service_history
from sheaf.experiments.service_history import HistoryLine
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.provision import FleetFile
from sheaf.fleets.remote.status import (
    CONNECTED,
    DeviceRecord,
    DeviceRecords,
    FinishedRun,
    Presence,
    RunHistory,
    RunStatus,
    SiteStatus,
    read_status,
    status_file,
)

OVERDUE = 15.0
"""Age of a file in seconds from which its writer, which replaces it every few seconds, counts as ended."""

MOST_ROUNDS = 50
"""Maximum number of rounds in a snapshot: the latest."""

_Content = TypeVar("_Content")
_File = TypeVar("_File", bound=BaseModel)


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        name: its name.
        kind: its group and its labels, for people; empty if it has none.
        state: ``gone``, ``new`` (never connected), ``unknown`` (the cloud is not running) or ``removed``. Of
            a connected device, its state in the current run: ``training``, ``waiting``, ``done`` or
            ``skipped``; ``idle`` if it has no part in one.
        heard: time of its last heartbeat; None if it has never connected, or if it is connected.
        task: its state in the current or latest run; None if it has no part in it.
        record: its models.
    """

    name: str
    kind: str
    state: str
    heard: float | None
    task: SiteStatus | None
    record: DeviceRecord


@dataclass(frozen=True)
class Snapshot:
    """A fleet at one moment.

    Attributes:
        now: the moment, in seconds since 1970.
        fleet: its configuration.
        presence: the heartbeats; None if no server has recorded any.
        run: the current or latest run, or None.
        history: the runs of the past, in order.
        rounds: the latest rounds of the fleet in service, in order.
        devices: in the order of the configuration, removed ones last.
    """

    now: float
    fleet: FleetFile
    presence: Presence | None
    run: RunStatus | None
    history: list[FinishedRun]
    rounds: list[HistoryLine]
    devices: list[Device]

    @property
    def cloud_is_running(self) -> bool:
        """Whether the cloud's server has written recently."""
        return self.presence is not None and self.now - self.presence.written < OVERDUE

    @property
    def run_state(self) -> str:
        """``none``, ``running``, ``ended``, ``failed`` or ``lost``, if its process ended without a report."""
        if self.run is None:
            return "none"
        if self.run.ended is not None:
            return "failed" if self.run.error else "ended"
        return "running" if self.now - self.run.written < OVERDUE else "lost"

    @cached_property
    def states(self) -> Counter[str]:
        """State -> number of devices."""
        return Counter(device.state for device in self.devices)

    @property
    def connected(self) -> int:
        """The number of connected devices."""
        return len(self.devices) - sum(self.states[state] for state in ("gone", "new", "unknown", "removed"))


class Reader:
    """Reads snapshots of one fleet; a file that has not changed is not read again.

    Args:
        fleet: the fleet's folder.
        service: the folder of the fleet in service.
    """

    def __init__(self, fleet: Path, service: Path) -> None:
        self._fleet = fleet
        self._service = service
        self._read: dict[Path, tuple[tuple[int, ...], Any]] = {}  # file -> its identity, and its content

    def snapshot(self, now: float) -> Snapshot:
        """Return the state of the fleet.

        Raises:
            FleetError: the folder has no readable fleet.
        """
        configuration = self._cached(self._fleet / "fleet.toml", lambda: provision.read(self._fleet))
        presence, run = self._status(Presence), self._status(RunStatus)
        models, history = self._status(DeviceRecords), self._status(RunHistory)
        runs = [] if history is None else history.runs
        rounds = self._cached(self._service / service_history.FILE, self._rounds)
        snapshot = Snapshot(now, configuration, presence, run, runs, rounds, [])
        known = {} if models is None else models.devices
        for name in configuration.edges:
            snapshot.devices.append(_device(snapshot, name, known.get(name, DeviceRecord())))
        for name in configuration.removed:
            heard = None if presence is None else presence.heard.get(name)
            snapshot.devices.append(Device(name, "", "removed", heard, None, known.get(name, DeviceRecord())))
        return snapshot

    def _rounds(self) -> list[HistoryLine]:
        return list(deque(service_history.read(self._service), MOST_ROUNDS))

    def _status(self, kind: type[_File]) -> _File | None:
        return self._cached(status_file(self._fleet, kind), lambda: read_status(self._fleet, kind))

    def _cached(self, path: Path, read: Callable[[], _Content]) -> _Content:
        try:
            status = os.stat(path)
            identity: tuple[int, ...] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            identity = ()
        if path not in self._read or self._read[path][0] != identity:
            try:
                self._read[path] = identity, read()
            except SheafError:  # fleet.toml while it is replaced: the earlier content is still right
                if path not in self._read:
                    raise
        content: _Content = self._read[path][1]
        return content


def _device(snapshot: Snapshot, name: str, record: DeviceRecord) -> Device:
    presence, run = snapshot.presence, snapshot.run
    heard = None if presence is None else presence.heard.get(name)
    task = None if run is None else run.sites.get(name)
    if heard is None:
        state = "new"
    elif not snapshot.cloud_is_running:
        state = "unknown"
    elif presence is not None and presence.written - heard > CONNECTED:
        state = "gone"
    else:
        heard, state = None, "idle"
        if task is not None and snapshot.run_state == "running":
            state = "skipped" if task.state in ("absent", "refused") else task.state
    group, labels = snapshot.fleet.groups.get(name, ""), snapshot.fleet.labels.get(name, ())
    return Device(name, ", ".join(filter(None, (group, *labels))), state, heard, task, record)
