"""A virtual clock around the in-process fleet: each task takes the seconds and joules of its device and link.

A task has seconds = download + work + upload: the bytes of its two messages over the link, and its
multiply-adds over the device's speed, each with seeded jitter. The devices of a call work side by side from
its start, in whatever order they are computed here. The call ends with its last answer, or when the cloud
gives a device up: after ``fleet.deadline``, or when it has left for ``DEAD_AFTER`` seconds. The absence of
such a device is that of a real fleet. It does not train if its absence is known before.

Not modelled: contention for the cloud's own link, the time of merges, and delays of messages by a device that
leaves for less than ``DEAD_AFTER`` seconds.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple, Protocol

from sheaf.core.fleet import Fleet, ReplayedFleet
from sheaf.core.task import Absence, Task, Times, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import message_bytes
from sheaf.fleets.absences import DEAD_AFTER, NOT_CONNECTED, late, silent
from sheaf.profiles.assignment import Devices
from sheaf.profiles.profile import Profile
from sheaf.runtime.timeline import Timeline
from sheaf.runtime.worker import Worker

MAX_RETURNS = 10_000
"""Most returns of devices after which a call without its quorum begins."""

RECORD_ONLY = ("evaluate", "collect")
"""Kinds of tasks that serve only the record of a run."""


class SimulatedFleet(Fleet, Protocol):
    """A fleet whose sites are in this process."""

    @property
    def workers(self) -> Mapping[str, Worker]:
        """The sites by name."""
        ...


class _Begun(NamedTuple):
    """A task whose answer is ready.

    Attributes:
        times: its times without the upload.
        upload: the factor of the seconds of its upload.
        gone: when the device leaves for ``DEAD_AFTER`` seconds or more; infinity if it never does.
    """

    times: Times
    upload: float
    gone: float


class ClockedFleet:
    """Sites in this process that stand for devices with profiles.

    A call for which fewer devices than the quorum are connected begins when enough have returned: on a real
    fleet, the run stops, and it is resumed then.

    Args:
        fleet: executes the tasks.
        devices: their profiles, and when they are connected.
        timeline: its end is the start of the next call.
        deadline: seconds after which a call goes on without a device.
        quorum: the fraction of a call's devices that must be connected at its start.
    """

    def __init__(
        self,
        fleet: SimulatedFleet,
        devices: Devices,
        timeline: Timeline,
        deadline: float,
        quorum: float,
    ) -> None:
        self._fleet = fleet
        self._workers = fleet.workers
        self._devices = devices
        self._timeline = timeline
        self._deadline = deadline
        self._quorum = quorum
        self._starts: dict[int, float] = {}  # call -> its start
        self._jitter = NormalDist(0, devices.settings.jitter) if devices.settings.jitter else None

    def names(self) -> tuple[str, ...]:
        """Return the sites, in their order."""
        return self._fleet.names()

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        """Execute the tasks and yield the answers with their times, or absences; see ``Fleet``."""
        call = call or tasks
        begun, absent = self._begin(call)
        yield from (absence for site, absence in absent.items() if site in tasks)
        open_tasks = {site: task for site, task in tasks.items() if site not in absent}
        for answer in self._fleet.run(open_tasks, {site: call[site] for site in begun}):
            if isinstance(answer, Absence):
                yield answer
                continue
            timed = self._finish(answer, begun[answer.site])
            if isinstance(timed, Absence):
                self._workers[timed.site].store.forget(tasks[timed.site].call)
            yield timed

    def replay(self, tasks: Mapping[str, Task], trained: Callable[[str], Blob]) -> None:
        """Let the sites hold what they held after these tasks; see ``Fleet``."""
        assert isinstance(self._fleet, ReplayedFleet)
        self._fleet.replay(tasks, trained)

    def train_again(self, tasks: Mapping[str, Task]) -> dict[str, Blob]:
        """Return the models of the train tasks of one call that were executed; see ``Fleet``."""
        assert isinstance(self._fleet, ReplayedFleet)
        begun, _ = self._begin(tasks)
        return self._fleet.train_again({site: tasks[site] for site in begun})

    def _begin(self, call: Mapping[str, Task]) -> tuple[dict[str, _Begun], dict[str, Absence]]:
        """Return each task of a call until its answer is ready, or its absence if that is known."""
        begun, absent = dict[str, _Begun](), dict[str, Absence]()
        start = self._start(call)
        for site, task in call.items():
            back = self._devices.presence.back_at(site, start)
            if back > start:
                absent[site] = Absence(site, NOT_CONNECTED, self._times(site, start))
                continue
            times, upload = self._working(site, task, start)
            gone = math.inf if site == CLOUD else self._devices.presence.leaves_at(site, start, DEAD_AFTER)
            failed = self._give_up(site, times, gone)
            if failed is None:
                begun[site] = _Begun(times, upload, gone)
            else:
                absent[site] = failed
        return begun, absent

    def _start(self, call: Mapping[str, Task]) -> float:
        """Return when a call starts: at the end of the previous one, or when its quorum is connected."""
        number = next(iter(call.values())).call
        if number not in self._starts:
            self._starts[number] = self._quorum_at(call, self._timeline.now)
        return self._starts[number]

    def _quorum_at(self, call: Mapping[str, Task], now: float) -> float:
        presence = self._devices.presence
        if presence.always:
            return now
        needed = max(1, math.ceil(self._quorum * len(call)))
        returns = [(presence.back_at(site, now), site) for site in call]
        heapq.heapify(returns)
        for _ in range(MAX_RETURNS):
            time = returns[0][0]
            if time == math.inf:
                break
            if sum(presence.back_at(site, time) <= time for site in call) >= needed:
                return time
            while returns[0][0] <= time:
                _, site = returns[0]
                left = presence.leaves_at(site, time, 0.0)
                back = math.inf if left == math.inf else presence.back_at(site, left)
                heapq.heapreplace(returns, (back, site))
        return now

    def _working(self, site: str, task: Task, start: float) -> tuple[Times, float]:
        """Return the times of a task until its answer is ready, and the factor of its upload."""
        if task.kind in RECORD_ONLY and not self._devices.settings.evaluation:
            return self._times(site, start), 0.0
        profile, (of_download, of_work, of_upload) = self._devices.profiles[site], self._factors(task)
        precision = "float32" if task.recipe is None else task.recipe.precision
        work = self._workers[site].macs_of(task) / profile.device.speed(precision)
        download = 0.0 if profile.link is None else profile.link.seconds_down(message_bytes(task))
        return self._times(site, start, download * of_download, work * of_work), of_upload

    def _finish(self, update: Update, begun: _Begun) -> Update | Absence:
        """Return the update with its times, or its absence if it arrives too late.

        Its cost has the virtual seconds and no memory: the measured ones differ between runs, and so do the
        bytes of a message that contains them.
        """
        times = begun.times
        cost = replace(update.cost, seconds=round(times.work, 9), peak_memory_bytes=0)
        update = replace(update, cost=cost)
        link = self._devices.profiles[update.site].link
        if link is not None and begun.upload:
            upload = link.seconds_up(message_bytes(update)) * begun.upload
            times = self._times(update.site, times.start, times.download, times.work, upload)
        return self._give_up(update.site, times, begun.gone) or update.at(times)

    def _give_up(self, site: str, times: Times, gone: float) -> Absence | None:
        """Return the absence of a device that exceeds the deadline or leaves, with the time spent until then.

        The cloud has no link to itself, and no deadline.
        """
        if site == CLOUD:
            return None
        deadline = times.start + self._deadline
        if times.end <= min(gone, deadline):
            return None
        left = gone + DEAD_AFTER <= deadline
        until = (gone if left else min(gone, deadline)) - times.start
        download = min(times.download, until)
        work = min(times.work, until - download)
        active = self._times(site, times.start, download, work, until - download - work)
        given_up = gone + DEAD_AFTER if left else deadline
        why = silent(DEAD_AFTER, NOT_CONNECTED) if left else late(self._deadline)
        joules, idle = active.joules, self._devices.profiles[site].watts_idle
        if joules is not None and idle is not None:
            joules += idle * (given_up - active.end)
        upload = given_up - times.start - download - work  # the cloud waits until then
        return Absence(site, why, replace(active, upload=upload, joules=joules))

    def _times(
        self, site: str, start: float, download: float = 0.0, work: float = 0.0, upload: float = 0.0
    ) -> Times:
        profile: Profile = self._devices.profiles[site]
        return Times(start, download, work, upload, profile.joules(download, work, upload))

    def _factors(self, task: Task) -> tuple[float, float, float]:
        """Return the seeded factors of a task's download, work and upload: 1 without jitter."""
        if self._jitter is None:
            return 1.0, 1.0, 1.0
        digest = hashlib.blake2b(task.seed.to_bytes(8, "big"), digest_size=24, person=b"clock").digest()
        uniform = [(int.from_bytes(digest[k : k + 8], "big") + 0.5) / 2**64 for k in (0, 8, 16)]
        first, second, third = (math.exp(self._jitter.inv_cdf(min(u, 1 - 1e-16))) for u in uniform)
        return first, second, third
