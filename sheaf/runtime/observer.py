"""Who observers a run: told of calls, steps, answers and rows; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from sheaf.runtime.result import Row


class Observer(Protocol):
    """Something that shows how a run goes, for as long as it is entered."""

    def __enter__(self) -> object:
        """The run begins; its folder is there."""
        ...

    def __exit__(self, *error: object) -> None:
        """The run ends."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """These sites are asked for something. Not told of what the journal answers in a resumed run."""
        ...

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """A site trained on: so many of its steps and examples of this call. Sites may take turns."""
        ...

    def answered(self, site: str) -> None:
        """A site did what it was asked."""
        ...

    def absent(self, site: str, why: str) -> None:
        """A site did not answer what it was asked, or not as it was asked; the call goes on without it."""
        ...

    def refused(self, site: str, why: str) -> None:
        """A site's answer is left out."""
        ...

    def row(self, row: Row) -> None:
        """A model was measured; in a resumed run, maybe before it was stopped."""
        ...


class NullObserver:
    """Watches nothing."""

    def __enter__(self) -> NullObserver:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Shows nothing."""

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Shows nothing."""

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Shows nothing."""

    def answered(self, site: str) -> None:
        """Shows nothing."""

    def absent(self, site: str, why: str) -> None:
        """Shows nothing."""

    def refused(self, site: str, why: str) -> None:
        """Shows nothing."""

    def row(self, row: Row) -> None:
        """Shows nothing."""


class Observers:
    """Tells several observers, in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._entered = ExitStack()

    def __enter__(self) -> Observers:
        with ExitStack() as entered:  # if one cannot be entered, those before it are left
            for observer in self._observers:
                entered.enter_context(observer)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.__exit__(*error)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.note(text)

    def began(self, kind: str, sites: Sequence[str]) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.began(kind, sites)

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.step(site, done, steps, loss, examples)

    def answered(self, site: str) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.answered(site)

    def absent(self, site: str, why: str) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.absent(site, why)

    def refused(self, site: str, why: str) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.refused(site, why)

    def row(self, row: Row) -> None:
        """Tells them."""
        for observer in self._observers:
            observer.row(row)
