"""A fleet of remote devices: sends tasks, long-polls the devices, and yields updates or absences.

The transport of messages is a ``Link`` (``link.py``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import torch

from sheaf.core.dataset import Samples
from sheaf.core.errors import FleetError, RefusedError
from sheaf.core.task import Absence, Progress, Task, Times, Update
from sheaf.fleets.absences import NOT_CONNECTED
from sheaf.fleets.remote.hashed_file import Bytes
from sheaf.fleets.remote.link import Link, LinkDownError, LinkError
from sheaf.fleets.remote.memory_trim import trim_heap
from sheaf.fleets.remote.messages import DeviceInfo, PlannedTask, Refusals, Setup, State, validate
from sheaf.fleets.remote.task_messages import decode_update
from sheaf.fleets.remote.transfer import Transfer, read_range
from sheaf.fleets.remote.update_limits import UpdateLimits

logger = logging.getLogger("sheaf")

_Reply = TypeVar("_Reply")

POLL_WAIT = 1.0
"""Time in seconds that a long-poll may block on the device."""

CALL_ATTEMPTS = 3
"""Maximum number of attempts at a call when the cloud's side of the link fails."""


class RemoteFleet:
    """Devices that are reached over a link.

    Args:
        sites: names of the devices, in the order of summation.
        link: transport of messages.
        setup: description of the run, sent to each device before its first task.
        parameter_bytes: task -> maximum size of the parameters and statistics of its update, in bytes.
        sample: (C, H, W) and dtype of one sample.
        deadline: time in seconds that a device may take for a call.
        folder: for downloaded updates, until the journal has them.
        progress: called with the progress of each device in training.
        shared: called with each update of a ``share`` task and its samples.
    """

    def __init__(
        self,
        sites: Sequence[str],
        link: Link,
        setup: Setup,
        parameter_bytes: Callable[[Task], int],
        sample: tuple[tuple[int, int, int], torch.dtype],
        deadline: float,
        folder: Path,
        progress: Progress | None = None,
        shared: Callable[[Task, Update, Samples], None] | None = None,
    ) -> None:
        self._sites = tuple(sites)
        self._link = link
        self._setup = setup
        self._limits = UpdateLimits(parameter_bytes, *sample, len(setup.classes), setup.form.bits)
        self._deadline = deadline
        self._folder = folder
        self._progress = progress
        self._progress_lock = threading.Lock()
        self._shared = shared
        self._transfer = Transfer(link, deadline, folder)
        self._devices: dict[str, DeviceInfo] = {}  # those that have been set up in the current job
        self._job = 0
        self._uploaded: dict[str, str] = {}  # device -> hash of the last tensors that it received

    def names(self) -> tuple[str, ...]:
        """Return the names of the sites, in their order."""
        return self._sites

    def devices(self) -> dict[str, DeviceInfo | Absence]:
        """Set up all devices, and return the ``DeviceInfo`` or the absence of each."""
        reached = self._gather(self._sites)
        absent = {site: Absence(site, NOT_CONNECTED) for site in self._sites if site not in reached}
        infos = self._each([site for site in self._sites if site in reached], self._set_up)
        return {site: absent.get(site) or infos[site] for site in self._sites}

    def check(self, planned: Mapping[str, Sequence[PlannedTask]]) -> dict[str, list[str] | Absence]:
        """Return why each device would refuse some of its planned tasks; an empty list if it would not.

        Args:
            planned: device -> tasks. The devices have been set up.
        """

        def ask(site: str) -> list[str]:
            tasks = [task.model_dump(mode="json") for task in planned[site]]
            begin = {"ticket": f"{self._setup.run}-check", "planned": tasks}
            state, _ = self._run_operation(site, begin, b"", time.monotonic(), 0)
            return validate(Refusals, state.answer).refusals

        return self._each(list(planned), ask)

    def _each(self, sites: Sequence[str], ask: Callable[[str], _Reply]) -> dict[str, _Reply | Absence]:
        """Return the reply of each site, all asked at once, or its absence."""
        replies: dict[str, _Reply | Absence] = {}
        with ThreadPoolExecutor(max(1, len(sites))) as pool:
            pending = {site: pool.submit(ask, site) for site in sites}
            try:
                for site, reply in pending.items():
                    try:
                        replies[site] = reply.result()
                    except (LinkError, FleetError) as error:
                        replies[site] = _absence(site, error)
            except BaseException:
                self._transfer.stop()  # Ctrl-C: end the other threads
                raise
        return replies

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        """Run the task of each site, and yield the results as they arrive; see ``Fleet.run``."""
        trim_heap()  # the memory of the previous merge
        todo = dict(tasks)
        for attempt in range(1, CALL_ATTEMPTS + 1):
            reached = self._gather(list(todo))
            down: Exception | None = None
            for site in [site for site in todo if site not in reached]:
                yield Absence(site, NOT_CONNECTED)
                del todo[site]
            with ThreadPoolExecutor(max(1, len(todo))) as pool:
                pending = {pool.submit(self._do, site, task): site for site, task in todo.items()}
                try:
                    for future in as_completed(pending):
                        try:
                            result = future.result()
                        except LinkDownError as error:
                            down = error
                            continue
                        del todo[pending[future]]
                        yield result
                except BaseException:
                    self._transfer.stop()  # Ctrl-C or a failed run: end the other threads
                    raise
            if down is None:
                return
            logger.info("the cloud's side of the link failed (%s); attempt %d", down, attempt)
        for site in todo:
            yield Absence(site, f"unreachable: {down}")

    def _gather(self, sites: Sequence[str]) -> set[str]:
        reached = self._link.gather(sites)
        if self._link.job != self._job:  # the devices have new processes
            self._devices.clear()
            self._uploaded.clear()
            self._job = self._link.job
        return reached

    def _do(self, site: str, task: Task) -> Update | Absence:
        """Run one task on one site.

        Raises:
            LinkDownError: the cloud's side of the link has failed.
        """
        started = time.monotonic()
        try:
            device = self._set_up(site)
            begin: dict[str, Any] = {"ticket": f"{self._setup.run}-{task.call}", "task": task.header()}
            last: Bytes = b""
            uploaded = self._uploaded.pop(site, None)
            blob = task.blob
            if blob is not None:
                again = blob.sha256 == uploaded
                offset = blob.size if again else self._transfer.upload(site, blob, started)
                last = read_range(blob, offset, blob.size - offset)
                begin["put"] = {"sha256": blob.sha256, "size": blob.size, "offset": offset}
            resumes = task.kind == "share" and self._transfer.has_chunks(site)
            max_bytes = 0 if resumes else self._transfer.message_bytes(site, "get")
            state, first = self._run_operation(site, begin, last, started, max_bytes)
            executed = time.monotonic()
            if blob is not None:
                self._uploaded[site] = blob.sha256
            update = self._download(site, task, state, first, device, started)
            work = min(update.cost.seconds, executed - started)
            return update.at(Times(started, executed - started - work, work, time.monotonic() - executed))
        except LinkDownError:
            raise
        except LinkError as error:
            self._devices.pop(site, None)  # its process may be a new one
            return _absence(site, error, Times(started, work=time.monotonic() - started))
        except FleetError as error:
            return _absence(site, error, Times(started, work=time.monotonic() - started))
        except OSError as error:  # of the cloud's disk
            raise FleetError(f"{error.filename or self._folder}: {error.strerror or error}") from error

    def _set_up(self, site: str) -> DeviceInfo:
        """Send the run's set-up to a device, unless it has it."""
        if site not in self._devices:
            begin = {"ticket": f"{self._setup.run}-setup", "setup": self._setup.model_dump(mode="json")}
            state, _ = self._run_operation(site, begin, b"", time.monotonic(), 0)
            device = validate(DeviceInfo, state.answer)
            classes = len(self._setup.classes)
            if len(device.counts) != classes:
                raise FleetError(f"device has counts of {len(device.counts)} classes, expected {classes}")
            self._devices[site] = device
        return self._devices[site]

    def _run_operation(
        self, site: str, begin: dict[str, Any], payload: Bytes, started: float, max_bytes: int
    ) -> tuple[State, Bytes]:
        """Begin an operation on a device, and poll until it is done.

        Args:
            payload: last bytes of the task's parameters.
            max_bytes: maximum number of bytes of the update's tensors to return with the state.

        Raises:
            RefusedError: the device refuses.
            FleetError: the deadline is over.
            LinkError: the device is dead.
        """
        poll: dict[str, Any] = {"wait": min(POLL_WAIT, self._deadline), "max_bytes": max_bytes}
        reply, first = self._transfer.call(site, "begin", begin | poll, payload, max_bytes)
        poll |= {"ticket": begin["ticket"], "cancel": False}
        while True:
            state = validate(State, reply)
            if state.state == "refused":
                raise RefusedError(state.reason)
            if state.state == "done":
                return state, first
            if poll["cancel"]:
                raise self._transfer.deadline_error()
            if self._progress is not None and state.steps and state.loss is not None:
                with self._progress_lock:
                    self._progress(site, state.done, state.steps, state.loss, state.examples)
            left = started + self._deadline - time.monotonic()
            poll |= {"wait": min(POLL_WAIT, max(0.0, left)), "cancel": left <= 0}
            reply, first = self._transfer.call(site, "poll", poll, max_bytes=max_bytes)

    def _download(
        self, site: str, task: Task, state: State, first: Bytes, device: DeviceInfo, started: float
    ) -> Update:
        """Return the update with its tensors, whose ``first`` bytes have been received.

        Raises:
            FleetError: the update is malformed, too large or not one of this task.
        """
        update = decode_update(state.answer, None, site, task.kind, len(self._setup.classes))
        if state.blob is None:
            if task.kind in ("share", "collect", "summarize") or (
                task.kind in ("train", "choose") and task.reply
            ):
                raise FleetError(f"update for {task.kind} has no tensors")
            if first:
                raise FleetError(f"reply has {len(first)} bytes, none were requested")
            return update
        self._limits.check_size(task, state.blob, device)
        transfer = self._transfer
        download = transfer.download_samples if task.kind == "share" else transfer.download_parameters
        update = Update.of(update.header(), download(site, state.blob, first, started))
        samples = self._limits.check_tensors(task, update, device)
        if samples is not None and self._shared is not None:
            self._shared(task, update, samples)
        return update


def _absence(site: str, error: Exception, times: Times | None = None) -> Absence:
    """Return the absence of a site whose operation failed."""
    return Absence(site, str(error), times, error.reason if isinstance(error, RefusedError) else "")
