"""Who watches a run: told of calls, steps and rows; decides nothing."""

from __future__ import annotations

from typing import Protocol

from sheaf.record import Row


class Watch(Protocol):
    """Something that shows how a run goes, for as long as it is entered."""

    def __enter__(self) -> object:
        """The run begins."""
        ...

    def __exit__(self, *error: object) -> None:
        """The run ends."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...

    def began(self, kind: str, sites: int) -> None:
        """So many sites are asked for something."""
        ...

    def step(self, site: str, done: int, steps: int, loss: float) -> None:
        """A site trained on."""
        ...

    def row(self, row: Row) -> None:
        """A model was measured."""
        ...


class Quiet:
    """Watches nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Shows nothing."""

    def began(self, kind: str, sites: int) -> None:
        """Shows nothing."""

    def step(self, site: str, done: int, steps: int, loss: float) -> None:
        """Shows nothing."""

    def row(self, row: Row) -> None:
        """Shows nothing."""
