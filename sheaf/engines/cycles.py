"""FLARE's messages end in cycles: each holds its megabyte until Python collects, which it seldom does."""

from __future__ import annotations

import gc
import itertools

EVERY = 32
"""Messages between two collections."""


class Cycles:
    """Collects now and then. Made when all is loaded, which no collection looks at then: that takes long."""

    def __init__(self) -> None:
        gc.freeze()
        self._messages = itertools.count(1)

    def message(self) -> None:
        """One more message has passed."""
        if next(self._messages) % EVERY == 0:
            gc.collect()
