"""Several observers receive the same events; if one cannot be entered, the others are exited."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sheaf.runtime.observer import NullObserver, Observer, Observers

EVENTS: dict[str, tuple[object, ...]] = {
    "note": ("a note",),
    "began": ("train", ("a", "b", "c")),
    "step": ("a", 1, 2, 0.5, 16),
    "answered": ("a",),
    "absent": ("b", "its battery is empty"),
    "refused": ("c", "not finite"),
    "timed": ("a timeline",),
    "row": ("a row",),
}
"""One event for every method of an observer: its name and arguments."""


class Recorder(NullObserver):
    """An observer that records every event."""

    def __init__(self, fails: bool = False) -> None:
        self.events: list[object] = []
        self._fails = fails

    def __getattribute__(self, name: str) -> object:
        if name not in EVENTS:
            return super().__getattribute__(name)
        record: Callable[..., None] = lambda *arguments: self.events.append((name, arguments))  # noqa: E731
        return record

    def __enter__(self) -> NullObserver:
        if self._fails:
            raise OSError("no")
        self.events.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.events.append(("exit", error[0]))


@pytest.mark.parametrize("kind", [Observer, NullObserver, Observers])
def test_the_events_above_are_all_there_are(kind: type) -> None:
    assert {name for name in vars(kind) if not name.startswith("_")} == EVENTS.keys()


def test_each_observer_receives_every_event_in_order() -> None:
    one, other = Recorder(), Recorder()
    several = Observers([one, other])
    several.__enter__()
    for name, arguments in EVENTS.items():
        getattr(several, name)(*arguments)
    several.__exit__(KeyError, KeyError(), None)
    assert one.events == other.events == ["enter", *EVENTS.items(), ("exit", KeyError)]


def test_the_null_observer_ignores_every_event() -> None:
    with NullObserver() as observer:
        for name, arguments in EVENTS.items():
            getattr(observer, name)(*arguments)


def test_if_one_cannot_be_entered_the_others_are_exited() -> None:
    one, never = Recorder(), Recorder()
    with pytest.raises(OSError, match="no"), Observers([one, Recorder(fails=True), never]):
        pass
    assert one.events == ["enter", ("exit", OSError)]
    assert never.events == []
