"""A component of FLARE's server, which passes all messages on: it gives memory back. Imports no torch."""

from __future__ import annotations

import gc
import threading
import time

from nvflare.apis.fl_component import FLComponent

from sheaf.fleets.remote.memory_trim import collect_and_trim

EVERY = 5.0
"""Seconds."""


class GivesBack(FLComponent):  # type: ignore[misc]  # nvflare is untyped
    """Collects, and gives free memory back, now and then, from a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        gc.freeze()
        threading.Thread(target=self._run, name="gives back", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(EVERY)
            collect_and_trim()
