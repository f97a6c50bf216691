"""Messages between two processes of one machine: what they are about, a header, and bytes.

``multiprocessing`` makes the connection and checks its secret; its own messages are not used, as they copy
large ones several times over.
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
_LARGEST = 1 << 28  # bytes of one part of a message; what both sides send is far below


class Pipe:
    """One end. Any thread may send; one receives.

    Args:
        connection: is closed; the pipe goes on with its socket.
    """

    def __init__(self, connection: Connection) -> None:
        self._socket = socket.socket(fileno=socket.dup(connection.fileno()))
        connection.close()
        self._sending = threading.Lock()

    def send(self, about: Mapping[str, Any], header: bytes = b"", payload: Bytes = b"") -> None:
        """Sends one message.

        Raises:
            OSError: nobody listens any more.
        """
        first = encode_header(about)
        lengths = _LENGTHS.pack(len(first), len(header), len(payload))
        with self._sending:
            self._socket.sendall(lengths + first + header)
            self._socket.sendall(payload)

    def receive(self) -> tuple[dict[str, Any], bytes, bytearray]:
        """Waits for the next message.

        Raises:
            OSError: the other side has hung up.
            ValueError: what came is no message.
        """
        lengths = _LENGTHS.unpack(self._read(_LENGTHS.size))
        if max(lengths) > _LARGEST:
            raise ValueError("a message of that size is none")
        about, header, payload = (self._read(length) for length in lengths)
        return json.loads(about), bytes(header), payload

    def is_waiting(self, seconds: float) -> bool:
        """Whether a message, or the end, comes within so many seconds."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def close(self) -> None:
        """Hangs up; a thread that waits in ``receive`` is told."""
        with contextlib.suppress(OSError):  # the other side may have hung up
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        left = memoryview(content)
        while left:
            count = self._socket.recv_into(left)
            if not count:
                raise ConnectionError("the other side has hung up")
            left = left[count:]
        return content
