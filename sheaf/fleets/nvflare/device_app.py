"""The device's part of a FLARE job: hands the cloud's messages to the ``EdgeSite``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nvflare.collab import collab

from sheaf.fleets.remote.device import EdgeSite
from sheaf.fleets.remote.memory_trim import MessageCollector

Bytes = npt.NDArray[np.uint8]

EDGE = "SHEAF_EDGE"
"""The environment variable that tells the job's process where the device's own folder is."""


class Edge:
    """Named by the job's configuration, and by the device's class allow-list."""

    def __init__(self) -> None:
        self._site: EdgeSite | None = None

    @collab.init  # type: ignore[untyped-decorator]
    def set_up(self) -> None:
        """Once a job, before the first message."""
        self._site = EdgeSite.at(Path(os.environ[EDGE]))
        self._cycles = MessageCollector()

    @collab.publish  # type: ignore[untyped-decorator]
    def ask(self, what: str, header: bytes, payload: Bytes) -> list[bytes]:
        """One message of the cloud; other devices are not listened to."""
        if collab.caller != "server" or self._site is None:
            raise PermissionError("only the cloud may ask")
        if not (type(what) is str and type(header) is bytes and type(payload) is np.ndarray):
            raise TypeError("a message is a word, a byte string and an array of bytes")
        if payload.dtype != np.uint8 or payload.ndim != 1:
            raise TypeError("a message's array holds bytes")
        self._cycles.count()
        return list(self._site.handle(what, header, payload.data))
