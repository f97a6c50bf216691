"""Memory that is free, given back: tensors come and go by the megabyte, and leave gaps and cycles behind.

Imported by FLARE's processes: nothing here imports torch.
"""

from __future__ import annotations

import ctypes
import gc
import itertools

EVERY = 32
"""Messages between two collections."""


def give_back() -> None:
    """Has glibc give the system what lies free between what is in use; other libraries do as they do."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def tidy() -> None:
    """Collects what ended in cycles, and gives back what is free then."""
    gc.collect()
    give_back()


class Cycles:
    """Collects now and then what FLARE's messages end in: each is a cycle that holds its megabyte.

    Made when all is loaded, which no collection looks at then: that takes long.
    """

    def __init__(self) -> None:
        gc.freeze()
        self._messages = itertools.count(1)

    def message(self) -> None:
        """One more message has passed."""
        if next(self._messages) % EVERY == 0:
            tidy()
