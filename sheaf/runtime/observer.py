"""Observers of a run. They receive its events, and have no effect on it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from sheaf.runtime.result import Row
from sheaf.runtime.timeline import Timeline


class Observer(Protocol):
    """A context manager that receives a run's events, such as a progress display or a tracker."""

    def __enter__(self) -> object:
        """Start. The run's folder exists."""
        ...

    def __exit__(self, *error: object) -> None:
        """Finish. ``error`` is the exception that ended the run, if any."""
        ...

    def note(self, text: str) -> None:
        """Receive a note for the user."""
        ...

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Receive the start of a call: the kind of its tasks, and the sites without a journaled answer."""
        ...

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Receive a training step. Sites may take turns.

        Args:
            site: the site that trains.
            done: its steps so far in this call.
            steps: its total steps in this call.
            loss: of the latest step.
            examples: training examples so far in this call.
        """
        ...

    def answered(self, site: str) -> None:
        """Receive the arrival of a site's answer."""
        ...

    def absent(self, site: str, why: str) -> None:
        """Receive the absence of a site from the call, which continues without it."""
        ...

    def refused(self, site: str, why: str) -> None:
        """Receive the refusal of a site's answer."""
        ...

    def timed(self, timeline: Timeline) -> None:
        """Receive the timeline after a call, if its answers have times. The next call changes it."""
        ...

    def row(self, row: Row) -> None:
        """Receive a measurement of a model. A resumed run repeats the earlier ones."""
        ...


class NullObserver:
    """An observer that ignores every event, and a base class for those that ignore some."""

    def __enter__(self) -> NullObserver:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Ignore the note."""

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Ignore the call."""

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Ignore the step."""

    def answered(self, site: str) -> None:
        """Ignore the answer."""

    def absent(self, site: str, why: str) -> None:
        """Ignore the absence."""

    def refused(self, site: str, why: str) -> None:
        """Ignore the refusal."""

    def timed(self, timeline: Timeline) -> None:
        """Ignore the timeline."""

    def row(self, row: Row) -> None:
        """Ignore the measurement."""


class Observers:
    """Several observers as one; each event goes to all of them, in order.

    Args:
        observers: entered in this order. If one cannot be entered, the earlier ones are exited.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._entered = ExitStack()

    def __enter__(self) -> Observers:
        with ExitStack() as entered:
            for observer in self._observers:
                entered.enter_context(observer)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.__exit__(*error)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """Forward the note."""
        for observer in self._observers:
            observer.note(text)

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Forward the call."""
        for observer in self._observers:
            observer.began(kind, sites)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Forward the step."""
        for observer in self._observers:
            observer.step(site, done, steps, loss, examples)

    def answered(self, site: str) -> None:
        """Forward the answer."""
        for observer in self._observers:
            observer.answered(site)

    def absent(self, site: str, why: str) -> None:
        """Forward the absence."""
        for observer in self._observers:
            observer.absent(site, why)

    def refused(self, site: str, why: str) -> None:
        """Forward the refusal."""
        for observer in self._observers:
            observer.refused(site, why)

    def timed(self, timeline: Timeline) -> None:
        """Forward the timeline."""
        for observer in self._observers:
            observer.timed(timeline)

    def row(self, row: Row) -> None:
        """Forward the measurement."""
        for observer in self._observers:
            observer.row(row)
