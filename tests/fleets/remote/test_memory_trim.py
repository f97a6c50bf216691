"""The periodic garbage collection frees reference cycles after a fixed number of messages."""

from __future__ import annotations

import gc
import weakref

from sheaf.fleets.remote.memory_trim import MESSAGES_PER_COLLECTION, MessageCollector


class Message:
    """A reference cycle, as FLARE's messages are."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_freed_after_a_number_of_messages() -> None:
    gc.collect()
    gc.disable()  # no collection of Python's own
    try:
        collector = MessageCollector()
        reference = weakref.ref(Message())
        for _ in range(MESSAGES_PER_COLLECTION - 1):
            collector.count()
        assert reference() is not None
        collector.count()
        assert reference() is None
    finally:
        gc.enable()
        gc.unfreeze()
