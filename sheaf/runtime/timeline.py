"""The time of a run: when each site executed each task, and what it cost in seconds, bytes and joules."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from sheaf.core.settings import settings
from sheaf.core.task import Absence, Times, Update
from sheaf.core.types import CLOUD
from sheaf.runtime.time_record import CallTime, SiteTime, Spent, TaskTime, TimeRecord

SHOWN = 20
"""Most devices whose tasks are recorded one by one. The others have totals only."""

Amount = Annotated[float, Field(gt=0)]

MAX_AWAY = 200
"""Most intervals recorded in which a device is away."""

LATEST = 2000
"""Tasks in the record of a run that goes on: the latest."""


class BudgetSpent(Exception):  # noqa: N818  # ends a run as planned
    """The run has spent its budget."""


@settings
class Budget:
    """The limits of a run, which stops when it has spent one of them. All above 0; None is no limit.

    Attributes:
        seconds: of the virtual clock.
        bytes: of all messages between edges and cloud, both ways.
        joules: of all edges.
    """

    seconds: Amount | None = None
    bytes: Amount | None = None
    joules: Amount | None = None

    def check(self, spent: Spent) -> None:
        """Raise ``BudgetSpent`` if one of the limits is reached."""
        for name, limit in vars(self).items():
            if limit is not None and (getattr(spent, name) or 0) >= limit:
                raise BudgetSpent


@dataclass(frozen=True)
class TimedSite:
    """The properties of a site on which a timeline depends.

    Attributes:
        profile: name of its profile; "" for a real device.
        watts_idle: power of the idle device; None: unknown.
        speed: relative speed, by which the recorded devices are chosen.
    """

    profile: str = ""
    watts_idle: float | None = None
    speed: float = 0.0


class Timeline:
    """The times of the tasks of a run.

    Its state follows from the answers, which the journal holds with their times: a resumed run has the same.

    Args:
        sites: site, the cloud included -> what the timeline needs of it.
        traffic: returns the bytes that crossed the links so far, both ways.
        away: returns the intervals until a time in which a device is away; None: none ever is.
        measured: the fleet is a real one, whose answers have times of this machine's clock.

    Attributes:
        now: seconds from the start of the run to the end of the latest call.
        virtual: the times are those of simulated devices.
    """

    def __init__(
        self,
        sites: Mapping[str, TimedSite],
        traffic: Callable[[], int],
        away: Callable[[str, float], Sequence[tuple[float, float]]] | None = None,
        measured: bool = False,
    ) -> None:
        self.now = 0.0
        self.virtual = not measured
        self._sites = dict(sites)
        self._traffic = traffic
        self._away = away or (lambda site, until: ())
        self._totals = {site: [0.0, 0.0, 0.0, 0.0] for site in sites}  # received, worked, sent, joules
        edges = [each.watts_idle for site, each in sites.items() if site != CLOUD]
        self._idle = None if None in edges else sum(watts for watts in edges if watts is not None)
        self._beyond_idle = 0.0  # joules of the edges' tasks, without those of their idle power
        self._calls: list[CallTime] = []
        self._starts: list[float] = []
        self._before: list[tuple[int, float]] = []  # bytes, and joules beyond idle, before each call
        self._shown = _spread(sites)
        self._tasks: list[TaskTime] = []
        self._origin: float | None = None

    def began(self) -> None:
        """Note the start of a call's new tasks: a real fleet's times count from the first one's."""
        if not self.virtual and self._origin is None:
            self._origin = time.monotonic() - self.now

    def placed(self, answer: Update | Absence) -> Update | Absence:
        """Return a new answer of a real fleet with its times counted from the start of the run.

        The cloud's have the measured seconds of their task.
        """
        if self._origin is None:
            return answer
        if answer.times is None:
            seconds = answer.cost.seconds if isinstance(answer, Update) else 0.0
            times = Times(self.now, work=seconds)
        else:
            times = replace(answer.times, start=max(0.0, answer.times.start - self._origin))
        return answer.at(times) if isinstance(answer, Update) else replace(answer, times=times)

    def add(self, call: int, kind: str, answers: Mapping[str, Update | Absence]) -> None:
        """Add a finished call, with absences in place of missing answers."""
        timed = {site: answer.times for site, answer in answers.items() if answer.times is not None}
        if not timed:
            return
        start = min(times.start for times in timed.values())
        last, longest = max(timed.items(), key=lambda item: item[1].end)
        self.now = max(self.now, longest.end)
        self._starts.append(start)
        self._before.append((self._traffic(), self._beyond_idle))
        absent = 0
        for site, times in timed.items():
            is_absent = isinstance(answers[site], Absence)
            absent += is_absent
            totals = self._totals[site]
            totals[0] += times.download
            totals[1] += times.work
            totals[2] += times.upload
            idle = self._sites[site].watts_idle
            if idle is not None and times.joules is not None:
                beyond = times.joules - idle * (times.end - times.start)
                totals[3] += beyond
                if site != CLOUD:
                    self._beyond_idle += beyond
            if site in self._shown:
                self._tasks.append(
                    TaskTime(
                        site=site,
                        call=call,
                        start=round(times.start, 6),
                        download=round(times.download, 6),
                        work=round(times.work, 6),
                        upload=round(times.upload, 6),
                        joules=None if times.joules is None else round(times.joules, 6),
                        absent=is_absent,
                    )
                )
        self._calls.append(
            CallTime(
                call=call,
                kind=kind,
                start=round(start, 6),
                end=round(longest.end, 6),
                last=last,
                sites=len(timed),
                absent=absent,
            )
        )

    def spent(self) -> Spent:
        """Return what the run has spent until now."""
        return self._spent(self.now, self._traffic(), self._beyond_idle)

    def spent_before(self, times: Times | None) -> Spent:
        """Return what the run had spent when a task began: before the measurement of a model."""
        if times is None:
            return self.spent()
        number = bisect.bisect_right(self._starts, times.start) - 1
        return self._spent(times.start, *self._before[number])

    def _spent(self, seconds: float, size: int, beyond_idle: float) -> Spent:
        joules = None if self._idle is None else round(self._idle * seconds + beyond_idle, 6)
        return Spent(seconds=round(seconds, 6), bytes=size, joules=joules)

    def record(self, measured: Sequence[Spent]) -> TimeRecord:
        """Return the record of the run.

        Args:
            measured: what was spent before each measurement, in the order of the result's rows.
        """
        return self._record(self._sites, self._tasks, self._calls, measured)

    def latest(self) -> TimeRecord:
        """Return the record until now, with the latest ``LATEST`` tasks and their sites and calls only."""
        tasks = self._tasks[-LATEST:]
        calls = self._calls[-LATEST:]
        if len(tasks) < len(self._tasks):
            calls = [call for call in calls if call.call >= tasks[0].call]
        return self._record(self._shown, tasks, calls, ())

    def _record(
        self,
        sites: Collection[str],
        tasks: Sequence[TaskTime],
        calls: Sequence[CallTime],
        measured: Sequence[Spent],
    ) -> TimeRecord:
        until = self.now
        shown = [site for site in self._sites if site in self._shown and site != CLOUD]
        return TimeRecord(
            virtual=self.virtual,
            spent=self.spent(),
            sites={site: self._site_time(site) for site in self._sites if site in sites},
            calls=list(calls),
            tasks=list(tasks),
            away={
                site: [(round(start, 3), round(end, 3)) for start, end in intervals[:MAX_AWAY]]
                for site in shown
                if (intervals := self._away(site, until))
            },
            measured=list(measured),
        )

    def _site_time(self, site: str) -> SiteTime:
        until, own = self.now, self._sites[site]
        received, worked, sent, beyond = self._totals[site]
        away = 0.0 if site == CLOUD else sum(end - start for start, end in self._away(site, until))
        waiting = max(0.0, until - received - worked - sent - away)
        return SiteTime(
            profile=own.profile,
            receiving=round(received, 6),
            computing=round(worked, 6),
            sending=round(sent, 6),
            waiting=round(waiting, 6),
            away=round(away, 6),
            idle=round(waiting / until, 6) if until else 0.0,
            joules=None if own.watts_idle is None else round(own.watts_idle * until + beyond, 6),
        )


def _spread(sites: Mapping[str, TimedSite]) -> Collection[str]:
    """Return the cloud and at most ``SHOWN`` edges, from the slowest to the fastest in equal steps."""
    edges = sorted((site for site in sites if site != CLOUD), key=lambda site: (sites[site].speed, site))
    if len(edges) > SHOWN:
        edges = [edges[round(step * (len(edges) - 1) / (SHOWN - 1))] for step in range(SHOWN)]
    return {*edges, CLOUD}
