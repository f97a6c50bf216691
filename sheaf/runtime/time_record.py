"""The record of a run's time, as ``result.json`` stores it."""

from __future__ import annotations

from dataclasses import field

from sheaf.core.settings import settings


@settings
class Spent:
    """The seconds, bytes and joules of a run up to a moment.

    Attributes:
        seconds: since the start of the run.
        bytes: of all messages between edges and cloud, both ways.
        joules: of all edges; None: the power of one is unknown.
    """

    seconds: float
    bytes: int
    joules: float | None


@settings
class CallTime:
    """The time of one call.

    Attributes:
        call: number of the call, from 1.
        kind: kind of its tasks.
        start: seconds from the start of the run.
        end: seconds until its last answer, or until the cloud gave up the last one.
        last: the site that the cloud waited for last.
        sites: number of sites that were asked.
        absent: number of those that gave no answer.
    """

    call: int
    kind: str
    start: float
    end: float
    last: str
    sites: int
    absent: int


@settings
class TaskTime:
    """The time of one task of one site.

    Attributes:
        site: the site's name.
        call: number of the call.
        start: seconds from the start of the run until the cloud sends the task.
        download: seconds in which the site receives it.
        work: seconds in which it computes.
        upload: seconds in which it sends its answer.
        joules: its energy in these seconds; None: unknown.
        absent: the cloud did not get the answer; the durations end when it gave up.
    """

    site: str
    call: int
    start: float
    download: float
    work: float
    upload: float
    joules: float | None
    absent: bool = False


@settings
class SiteTime:
    """The time and energy of one site in the whole run.

    Attributes:
        profile: name of its device and link; "" for a real device.
        receiving: seconds in which it receives.
        computing: seconds in which it computes.
        sending: seconds in which it sends.
        waiting: seconds in which it is connected and does none of these.
        away: seconds in which it is not connected.
        idle: ``waiting`` as a fraction of the run.
        joules: its energy in the run, idle or away included; None: unknown.
    """

    profile: str
    receiving: float
    computing: float
    sending: float
    waiting: float
    away: float
    idle: float
    joules: float | None


@settings
class TimeRecord:
    """The time of a run.

    Attributes:
        virtual: the times are those of simulated devices, not measured ones.
        spent: seconds, bytes and joules of the whole run.
        sites: site -> its time in the whole run.
        calls: the calls in order.
        tasks: the tasks of the cloud and of at most 20 edges, from the slowest to the fastest profile.
        away: one of these edges -> intervals in which it was away, at most 200.
        measured: what was spent before each of the result's rows, in order; rows of baselines have none.
    """

    virtual: bool
    spent: Spent
    sites: dict[str, SiteTime]
    calls: list[CallTime]
    tasks: list[TaskTime]
    away: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    measured: list[Spent] = field(default_factory=list)
