"""The record of a run on a fleet, in the fleet's folder, for programs that show it.

See ``RunStatus`` (``status/run.json``) and ``DeviceRecords`` (``status/devices.json``).
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from sheaf.core.errors import first_line
from sheaf.core.types import CLOUD
from sheaf.fleets.remote.status import (
    CallLoss,
    CurrentModel,
    DeviceRecord,
    DeviceRecords,
    FinishedRun,
    MeasuredModel,
    Measurement,
    RunHistory,
    RunStatus,
    SiteStatus,
    Skip,
    State,
    read_status,
    write_status,
)
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Result, Row
from sheaf.runtime.timeline import Timeline

logger = logging.getLogger("sheaf")

INTERVAL = 1.0
"""Minimum time between two writings of the record, in seconds."""

LONGEST = 5.0
"""Maximum wait for a change, in seconds. A record that is much older is of a killed process."""

MOST = 1000
"""Maximum number of measurements, trainings, skipped calls, notes and earlier runs: the latest."""


class RunRecord(NullObserver):
    """An observer that records the state of a run in the fleet's folder.

    Args:
        fleet: the fleet's folder.
        run: the run's folder.
        title: method, data and model.
    """

    def __init__(self, fleet: Path, run: Path, title: str) -> None:
        now = time.time()
        self._fleet = fleet
        self._status = RunStatus(run=str(run.resolve()), title=title, began=now, written=now)
        self._models = read_status(fleet, DeviceRecords) or DeviceRecords()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._models_changed = False
        self._answered: set[str] = set()  # devices
        self._kept_out = 0
        self._ended = threading.Event()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the files up to date inside the block, and record its end or its error."""
        thread = threading.Thread(target=self._keep, name="run record", daemon=True)
        self._write()
        thread.start()
        try:
            yield
        except BaseException as error:
            self._status.error = first_line(error) if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            self._ended.set()
            self._changed.set()
            thread.join()
            self._end_call()
            self._status.ended = time.time()
            self._write(synced=True, history=self._history())

    def note(self, text: str) -> None:
        """Record the note."""
        with self._lock:
            self._status.notes = [*self._status.notes, text][-MOST:]
        self._changed.set()

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Record the start of a call: its sites are waiting."""
        now = time.time()
        with self._lock:
            self._end_call()
            status = self._status
            status.call, status.kind, status.call_began = status.call + 1, kind, now
            for site in sites:
                status.sites[site] = SiteStatus(call=status.call, since=now)
        self._changed.set()

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Record the progress of a site."""
        with self._lock:
            entry = self._enter(site, "training")
            entry.done, entry.steps = done, steps
            entry.loss = loss if math.isfinite(loss) else None
        self._changed.set()

    def answered(self, site: str) -> None:
        """Record the arrival of an answer."""
        with self._lock:
            entry = self._enter(site, "done")
            entry.done = entry.steps
            if site != CLOUD:
                self._answered.add(site)
        self._changed.set()

    def absent(self, site: str, why: str) -> None:
        """Record an absence and its reason."""
        self._skip(site, "absent", why)

    def refused(self, site: str, why: str) -> None:
        """Record a refusal and its reason."""
        self._skip(site, "refused", why)

    def timed(self, timeline: Timeline) -> None:
        """Record when the sites worked."""
        latest = timeline.latest()
        with self._lock:
            self._status.time = latest
        self._changed.set()

    def row(self, row: Row) -> None:
        """Record a measurement, in the record of its device too."""
        with self._lock:
            measured = self._status.measured
            stage = (row.stage, row.round, row.reference)
            if not measured or (measured[-1].stage, measured[-1].round, measured[-1].reference) != stage:
                measured.append(Measurement(stage=row.stage, round=row.round, reference=row.reference))
                del measured[:-MOST]
            latest = measured[-1]
            if row.site == CLOUD:
                latest.cloud = row.accuracy
            else:
                low, mean, high = latest.edges or (row.accuracy,) * 3
                latest.count += 1
                mean += (row.accuracy - mean) / latest.count
                latest.edges = min(low, row.accuracy), mean, max(high, row.accuracy)
            if row.site != CLOUD and not row.reference:
                name, now = Path(self._status.run).name, time.time()
                measured_model = MeasuredModel(run=name, stage=row.stage, at=now, accuracy=row.accuracy)
                self._device(row.site).measured = measured_model
                self._models_changed = True
        self._changed.set()

    def finished(self, result: Result) -> None:
        """Record the devices' decisions whether the run's model replaces their current one."""
        name, now = Path(self._status.run).name, time.time()
        with self._lock:
            decisions = result.replacements
            self._kept_out = sum(not decision.replaced for decision in decisions.values())
            for site, decision in decisions.items():
                device = self._device(site)
                device.kept_out = "" if decision.replaced else decision.why
                if decision.replaced:
                    device.current = CurrentModel(run=name, at=now, held_out=decision.held_out)
                elif device.current is not None and decision.before is not None:
                    device.current.held_out = decision.before
            self._models_changed = True

    def _device(self, site: str) -> DeviceRecord:
        return self._models.devices.setdefault(site, DeviceRecord())

    def _enter(self, site: str, state: State, why: str = "") -> SiteStatus:
        entry = self._status.sites.setdefault(site, SiteStatus())
        if entry.state != state or why != entry.why:
            entry.state, entry.since, entry.why = state, time.time(), why
        return entry

    def _skip(self, site: str, state: Literal["absent", "refused"], why: str) -> None:
        status = self._status
        with self._lock:
            entry = self._enter(site, state, why)
            skip = Skip(site=site, call=status.call, kind=status.kind, at=entry.since, why=why)
            status.skipped = [*status.skipped, skip][-MOST:]
        self._changed.set()

    def _end_call(self) -> None:
        """Add the final losses of a training call."""
        status = self._status
        if status.kind != "train":
            return
        trained = {
            site: entry.loss
            for site, entry in status.sites.items()
            if entry.call == status.call and entry.loss is not None
        }
        if trained and not (status.losses and status.losses[-1].call == status.call):
            values = list(trained.values())
            losses = min(values), statistics.median(values), max(values)
            status.losses.append(CallLoss(call=status.call, at_cloud=CLOUD in trained, losses=losses))
            del status.losses[:-MOST]

    def _history(self) -> RunHistory:
        """Return the history of the fleet with this run; a resumed run replaces its failed attempt."""
        status = self._status
        own = [each for each in status.measured if not each.reference]
        finished = FinishedRun(
            run=status.run,
            title=status.title,
            began=status.began,
            ended=status.ended or time.time(),
            error=status.error,
            devices=len(self._answered),
            skipped=len({skip.site for skip in status.skipped}),
            kept_out=self._kept_out,
            cloud=next((each.cloud for each in reversed(own) if each.cloud is not None), None),
            edges=next((each.edges for each in reversed(own) if each.edges is not None), None),
        )
        before = read_status(self._fleet, RunHistory) or RunHistory()
        earlier = [each for each in before.runs if each.run != status.run]
        return RunHistory(runs=[*earlier, finished][-MOST:])

    def _keep(self) -> None:
        while not self._ended.is_set():
            self._changed.wait(LONGEST)
            self._changed.clear()
            self._write()
            self._ended.wait(INTERVAL)

    def _write(self, synced: bool = False, history: RunHistory | None = None) -> None:
        with self._lock:
            self._status.written = time.time()
            contents: dict[type[BaseModel], bytes] = {RunStatus: self._status.model_dump_json().encode()}
            if self._models_changed:
                contents[DeviceRecords] = self._models.model_dump_json().encode()
                self._models_changed = False
        if history is not None:
            contents[RunHistory] = history.model_dump_json().encode()
        try:
            for kind, content in contents.items():
                write_status(self._fleet, kind, content, synced or kind is DeviceRecords)
        except OSError as error:  # the run goes on: a full disk ends it elsewhere
            logger.warning("the status of the fleet cannot be written: %s", error)
