"""Observers observers are told the same; one that cannot be entered takes the others down with it."""

from __future__ import annotations

import pytest

from sheaf.runtime.observer import NullObserver, Observers


class Keeps(NullObserver):
    """Keeps what it is told."""

    def __init__(self, fails: bool = False) -> None:
        self.told: list[object] = []
        self._fails = fails

    def __enter__(self) -> NullObserver:
        if self._fails:
            raise OSError("no")
        self.told.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.told.append(("exit", error[0]))

    def step(self, *told: object) -> None:
        self.told.append(told)

    def began(self, *told: object) -> None:
        self.told.append(told)

    def answered(self, *told: object) -> None:
        self.told.append(told)

    def refused(self, *told: object) -> None:
        self.told.append(told)

    def note(self, *told: object) -> None:
        self.told.append(told)

    def row(self, *told: object) -> None:
        self.told.append(told)


def test_each_is_told_everything_in_order() -> None:
    one, other = Keeps(), Keeps()
    events = [
        ("note", ("hear",)),
        ("began", ("train", ("a", "b"))),
        ("step", ("a", 1, 2, 0.5, 16)),
        ("answered", ("a",)),
        ("refused", ("b", "not finite")),
        ("row", ("a row",)),
    ]
    several = Observers([one, other])
    several.__enter__()
    for name, told in events:
        getattr(several, name)(*told)
    several.__exit__(KeyError, KeyError(), None)
    assert one.told == other.told == ["enter", *(told for _, told in events), ("exit", KeyError)]


def test_one_that_cannot_be_entered_leaves_none_open() -> None:
    one, never = Keeps(), Keeps()
    with pytest.raises(OSError, match="no"), Observers([one, Keeps(fails=True), never]):
        pass
    assert one.told == ["enter", ("exit", OSError)]
    assert never.told == []
