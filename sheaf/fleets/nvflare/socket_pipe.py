"""Messages between two processes on one machine: a JSON envelope, a header and a payload.

``multiprocessing`` opens and authenticates the connection. Its own messages are not used, because they copy
large payloads several times.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from sheaf.core.wire_format import encode_header
from sheaf.fleets.remote.hashed_file import Bytes

_LENGTHS = struct.Struct("!III")
_MAX_BYTES = 1 << 28  # of each part of a message


class Pipe:
    """One end of the connection. ``send`` is thread-safe; only one thread may call ``receive``.

    Args:
        connection: an authenticated connection; the pipe takes over its socket and closes it.
    """

    def __init__(self, connection: Connection) -> None:
        self._socket = socket.socket(fileno=socket.dup(connection.fileno()))
        connection.close()
        self._lock = threading.Lock()

    def send(self, envelope: Mapping[str, Any], header: bytes = b"", payload: Bytes = b"") -> None:
        """Send one message.

        Raises:
            OSError: the connection is closed.
        """
        first = encode_header(envelope)
        lengths = _LENGTHS.pack(len(first), len(header), len(payload))
        with self._lock:
            self._socket.sendall(lengths + first + header)
            self._socket.sendall(payload)

    def receive(self) -> tuple[dict[str, Any], bytes, bytearray]:
        """Block until the next message and return it: envelope, header, payload.

        Raises:
            OSError: the connection is closed.
            ValueError: the message is malformed.
        """
        lengths = _LENGTHS.unpack(self._read(_LENGTHS.size))
        if max(lengths) > _MAX_BYTES:
            raise ValueError(f"message of {max(lengths)} bytes exceeds {_MAX_BYTES}")
        envelope, header, payload = (self._read(length) for length in lengths)
        return json.loads(envelope), bytes(header), payload

    def poll(self, seconds: float) -> bool:
        """Return whether ``receive`` would return or raise at once; block for at most ``seconds``."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def close(self) -> None:
        """Close the connection; a blocked ``receive`` raises."""
        with contextlib.suppress(OSError):  # the other end may have closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        rest = memoryview(content)
        while rest:
            count = self._socket.recv_into(rest)
            if not count:
                raise ConnectionError("the connection is closed")
            rest = rest[count:]
        return content
