"""A component of FLARE's server, which relays all messages: returns free memory to the system. No torch."""

from __future__ import annotations

import gc
import threading
import time

from nvflare.apis.fl_component import FLComponent

from sheaf.fleets.remote.memory_trim import collect_and_trim

PERIOD = 5.0
"""Time between two collections, in seconds."""


class MemoryTrim(FLComponent):  # type: ignore[misc]  # nvflare is untyped
    """A thread that collects garbage and trims the heap periodically."""

    def __init__(self) -> None:
        super().__init__()
        gc.freeze()
        threading.Thread(target=self._run, name="memory trim", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(PERIOD)
            collect_and_trim()
