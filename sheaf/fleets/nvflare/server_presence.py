"""A component of FLARE's server: records the devices' last heartbeats in ``status/presence.json``. No torch.

It uses FLARE's public API only: ``get_clients`` of the server's engine, and ``last_connect_time``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from sheaf.fleets.nvflare.processes import FLEET, HEARTBEAT
from sheaf.fleets.remote.status import Presence, read_status, write_status

logger = logging.getLogger("sheaf")

PERIOD = float(HEARTBEAT)
"""Time between two records, in seconds."""


class PresenceRecord(FLComponent):  # type: ignore[misc]  # nvflare is untyped
    """A thread that records the heartbeats periodically, from the start of the server."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Start the thread when the server has started."""
        if event_type == EventType.SYSTEM_START:
            arguments = (fl_ctx.get_engine(), Path(os.environ[FLEET]))
            threading.Thread(target=_run, args=arguments, name="presence record", daemon=True).start()


def _run(engine: Any, fleet: Path) -> None:
    before = read_status(fleet, Presence)
    presence = Presence(started=time.time(), written=0, heard={} if before is None else before.heard)
    connected: set[str] = set()
    while True:
        now = {client.name: client.last_connect_time for client in engine.get_clients()}
        presence.heard |= now
        presence.written = time.time()
        try:  # fsync only for what another heartbeat does not repeat
            content = presence.model_dump_json().encode()
            write_status(fleet, Presence, content, synced=now.keys() != connected)
        except OSError as error:
            logger.warning("the status of the fleet cannot be written: %s", error)
        connected = set(now)
        time.sleep(PERIOD)
