"""The interface between a fleet and its transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sheaf.fleets.remote.hashed_file import Bytes


class LinkError(Exception):
    """A message got no reply within its timeout."""


class LinkDownError(LinkError):
    """The cloud's side of the transport has failed: no device can be reached until ``gather`` restarts it."""


class Link(Protocol):
    """A transport of messages to the devices of a fleet."""

    @property
    def job(self) -> int:
        """The number of jobs started so far; each job starts new processes on the devices, without state."""
        ...

    def gather(self, sites: Sequence[str]) -> set[str]:
        """Connect to those of ``sites`` that are reachable, and return them."""
        ...

    def call(
        self, site: str, kind: str, header: Mapping[str, Any], payload: Bytes, timeout: float
    ) -> tuple[dict[str, Any], Bytes]:
        """Send one message and return the reply: header and payload.

        Raises:
            LinkError: no reply within ``timeout`` seconds.
        """
        ...

    def lose(self, site: str) -> None:
        """Mark a device as dead, until its next heartbeat."""
        ...
