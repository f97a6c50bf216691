"""Calls to the devices of one running FLARE job, through its relay."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from sheaf.fleets.nvflare.socket_pipe import Pipe
from sheaf.fleets.remote.hashed_file import Bytes
from sheaf.fleets.remote.link import LinkDownError, LinkError

RELAY_ALLOWANCE = 5.0
"""Time in seconds that the relay may take in addition to a call's timeout."""

RELAY_DOWN = "the job's process on the cloud has ended"

Reply = tuple[dict[str, Any], Bytes]


class Job:
    """One running job.

    Args:
        pipe: connection to its relay.
        sites: its devices.

    Attributes:
        sites: its devices, without those that have died.
        is_up: whether the relay is connected.
    """

    def __init__(self, pipe: Pipe, sites: set[str]) -> None:
        self.sites = sites
        self.is_up = True
        self._pipe = pipe
        self._pending: dict[int, Future[Reply]] = {}
        self._numbers = itertools.count(1)
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, site: str, kind: str, header: bytes, payload: Bytes, timeout: float) -> Reply:
        """Send one message to a device and return the reply.

        Raises:
            LinkError: no reply within ``timeout`` seconds, or the device is not in the job.
            LinkDownError: the relay has ended.
        """
        if site not in self.sites:
            raise LinkError("not in the running job")
        reply: Future[Reply] = Future()
        number = next(self._numbers)
        self._pending[number] = reply
        try:
            envelope = {"number": number, "site": site, "kind": kind, "timeout": timeout}
            self._pipe.send(envelope, header, payload)
            if not self.is_up:
                raise LinkDownError(RELAY_DOWN)
            return reply.result(timeout + RELAY_ALLOWANCE)
        except FutureTimeoutError as error:  # from Python 3.11 on, an OSError
            raise LinkError(f"no reply within {timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise LinkDownError(RELAY_DOWN) from error
        finally:
            self._pending.pop(number, None)

    def close(self) -> None:
        """End the job: its relay ends when the connection is closed."""
        self.is_up = False
        self._pipe.close()

    def _read(self) -> None:
        try:
            while True:
                self._resolve(*self._pipe.receive())
        except (OSError, ValueError, TypeError):
            self.is_up = False
            for reply in list(self._pending.values()):
                if not reply.done():
                    reply.set_exception(LinkDownError(RELAY_DOWN))

    def _resolve(self, envelope: dict[str, Any], header: bytes, payload: Bytes) -> None:
        reply = self._pending.get(envelope["number"])
        if reply is None:
            return  # the call has timed out
        if "error" in envelope:
            reply.set_exception(LinkError(envelope["error"]))
            return
        try:
            decoded = json.loads(header)
            if not isinstance(decoded, dict):
                raise ValueError("not an object")
        except ValueError:
            decoded = {"error": "the reply's header is not a JSON object"}
        reply.set_result((decoded, payload))
