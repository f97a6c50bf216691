"""Division of the time among jobs, and the limit that stops one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import FrameType

from benchmarks.full_size.jobs import Job

LEAST = 10.0
"""Seconds of a job at least; with less time left, none is started."""


class Outcome(Enum):
    """The outcome of an attempt at a job."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class TimeUp(Exception):  # noqa: N818  # an event, as KeyboardInterrupt
    """The limit stopped a job."""


def run_in_turn(
    jobs: Sequence[Job],
    end: float,
    attempt: Callable[[Job, float], Outcome],
    skipped: Callable[[Job, float], None],
    now: Callable[[], float] = time.monotonic,
) -> dict[str, Outcome]:
    """Attempt the jobs in order; return the last outcome of each job that was attempted.

    The time left is divided among the jobs still to come, by their weights, and no job gets less than
    ``LEAST``. Time that a job does not use goes to the next ones. In a second pass, each stopped job may use
    all of the time left.

    Args:
        jobs: in order of worth.
        end: the time at which all must have ended, in seconds of ``now``.
        attempt: runs a job for at most that number of seconds.
        skipped: is called with a job that does not fit any more, and the seconds that are left.
        now: the clock.
    """
    outcomes: dict[str, Outcome] = {}
    for again in (False, True):
        todo = [job for job in jobs if outcomes.get(job.name, Outcome.STOPPED) is Outcome.STOPPED]
        for number, job in enumerate(todo):
            left = end - now()
            part = 1.0 if again else job.weight / sum(other.weight for other in todo[number:])
            if left >= LEAST:
                outcomes[job.name] = attempt(job, max(LEAST, left * part))
            elif job.name not in outcomes and not again:
                skipped(job, max(0.0, left))
    return outcomes


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop the block after ``seconds`` as Ctrl-C does: KeyboardInterrupt is raised in the main thread.

    Raises:
        TimeUp: the block was stopped. A KeyboardInterrupt of the user's passes.
    """
    reached = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal reached
        reached = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt:
        if not reached:
            raise
        raise TimeUp from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
