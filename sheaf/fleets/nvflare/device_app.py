"""The device's side of a FLARE job: passes messages of the cloud to the ``EdgeSite``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nvflare.collab import collab

from sheaf.fleets.remote.device import EdgeSite
from sheaf.fleets.remote.memory_trim import MessageCollector

Array = npt.NDArray[np.uint8]

EDGE = "SHEAF_EDGE"
"""The environment variable with the device's folder."""


class Edge:
    """The only class of sheaf that a job may name on a device; see ``site_config.py``."""

    def __init__(self) -> None:
        self._site: EdgeSite | None = None

    @collab.init  # type: ignore[untyped-decorator]
    def set_up(self) -> None:
        """Create the device, before the first message of a job."""
        self._site = EdgeSite.at(Path(os.environ[EDGE]))
        self._collector = MessageCollector()

    @collab.publish  # type: ignore[untyped-decorator]
    def handle(self, kind: str, header: bytes, payload: Array) -> list[bytes]:
        """Return the reply, header and payload, to one message of the cloud; see ``EdgeSite.handle``.

        Raises:
            PermissionError: the caller is another device.
            TypeError: an argument has a wrong type.
        """
        if collab.caller != "server" or self._site is None:
            raise PermissionError(f"{collab.caller} may not call a device; only the cloud may")
        if not (type(kind) is str and type(header) is bytes and type(payload) is np.ndarray):
            raise TypeError("a message needs a str, bytes and an array")
        if payload.dtype != np.uint8 or payload.ndim != 1:
            raise TypeError(
                f"payload is {payload.ndim}-dimensional {payload.dtype}, expected 1-dimensional uint8"
            )
        self._collector.count()
        return list(self._site.handle(kind, header, payload.data))
