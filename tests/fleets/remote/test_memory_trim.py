"""What ends in a cycle is let go of after so many messages, not when Python thinks of it."""

from __future__ import annotations

import gc
import weakref

from sheaf.fleets.remote.memory_trim import EVERY, Cycles


class Message:
    """It keeps itself alive, as FLARE's do."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_go_after_so_many_messages() -> None:
    gc.collect()
    gc.disable()  # Python's own collections must not do it here
    try:
        cycles = Cycles()
        seen = weakref.ref(Message())
        for _ in range(EVERY - 1):
            cycles.message()
        assert seen() is not None
        cycles.message()
        assert seen() is None
    finally:
        gc.enable()
        gc.unfreeze()
