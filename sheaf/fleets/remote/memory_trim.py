"""Returning free heap memory to the system: messages of megabytes leave reference cycles and holes.

FLARE's processes import this module; it does not import torch.
"""

from __future__ import annotations

import ctypes
import gc
import itertools

MESSAGES_PER_COLLECTION = 32


def trim_heap() -> None:
    """Return free heap memory to the system (glibc's ``malloc_trim``; other C libraries: no effect)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def collect_and_trim() -> None:
    """Run the garbage collector, then return free memory to the system."""
    gc.collect()
    trim_heap()


class MessageCollector:
    """A garbage collection every ``MESSAGES_PER_COLLECTION`` messages.

    Each message of FLARE ends in a reference cycle that keeps its megabytes alive. Create the collector after
    all imports: it freezes the existing objects, so that collections skip them.
    """

    def __init__(self) -> None:
        gc.freeze()
        self._messages = itertools.count(1)

    def count(self) -> None:
        """Count one message, and collect if it is due."""
        if next(self._messages) % MESSAGES_PER_COLLECTION == 0:
            collect_and_trim()
