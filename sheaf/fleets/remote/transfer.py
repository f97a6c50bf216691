"""Messages and tensor files over a ``Link``: retries, timeouts, message sizes, verified downloads."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import FleetError
from sheaf.core.tensor_file import Blob
from sheaf.fleets import absences
from sheaf.fleets.remote.hashed_file import Bytes, HashedFile
from sheaf.fleets.remote.link import Link, LinkDownError, LinkError
from sheaf.fleets.remote.messages import CHUNK, MAX_CHUNKS, BlobHeader

logger = logging.getLogger("sheaf")

MESSAGE_TIMEOUT = 5.0
"""Time in seconds after which a message without a reply is sent again."""

MAX_ATTEMPTS = 3
"""Maximum number of downloads of a file that arrives damaged."""

Direction = Literal["put", "get"]


class Transfer:
    """Reliable messages to the devices of a fleet.

    Args:
        link: the transport.
        deadline: time in seconds that a device may take for a call.
        folder: for downloads, until the journal has them.
    """

    def __init__(self, link: Link, deadline: float, folder: Path) -> None:
        self._link = link
        self._deadline = deadline
        self._folder = folder
        self._chunks: dict[tuple[str, Direction], int] = {}  # number of chunks in the next message
        self._stopped = False

    def stop(self) -> None:
        """Make all messages under way fail at their next timeout."""
        self._stopped = True

    def check_deadline(self, started: float) -> None:
        """Raise ``FleetError`` if a call that began at ``started`` (monotonic time) is past its deadline."""
        if time.monotonic() - started > self._deadline:
            raise self.deadline_error()

    def deadline_error(self) -> FleetError:
        """Return the error of a device that has exceeded the deadline."""
        return FleetError(absences.late(self._deadline))

    def message_bytes(self, site: str, direction: Direction) -> int:
        """Return the payload size of the next message, in bytes."""
        return self._chunks.get((site, direction), 1) * CHUNK

    def call(
        self, site: str, kind: str, header: Mapping[str, Any], payload: Bytes = b"", max_bytes: int = 0
    ) -> tuple[dict[str, Any], Bytes]:
        """Send a message until it has a reply, and return the reply.

        Args:
            max_bytes: maximum size of the reply's payload.

        Raises:
            FleetError: the device refuses the message, or the reply is too large.
            LinkError: the device is dead.
        """
        dead_at = time.monotonic() + absences.DEAD_AFTER
        while True:
            if self._stopped:
                raise LinkError("the run was stopped")
            try:
                reply, content = self._link.call(site, kind, header, payload, MESSAGE_TIMEOUT)
                break
            except LinkDownError:
                raise
            except LinkError as error:
                if time.monotonic() + 1 > dead_at:
                    self._link.lose(site)
                    for direction in ("put", "get"):  # the connection may have become slow
                        self._chunks.pop((site, direction), None)
                    raise LinkError(absences.silent(absences.DEAD_AFTER, error)) from error
                time.sleep(0.5)
        if "error" in reply:
            raise FleetError(f"refused: {str(reply['error'])[:300]}")
        if len(content) > max_bytes:
            raise FleetError(f"reply to {kind} has {len(content)} bytes, at most {max_bytes} were requested")
        return reply, content

    def upload(self, site: str, blob: Blob, started: float) -> int:
        """Upload a file up to its last message, resuming an interrupted upload; return the bytes received."""
        put, offset = {"sha256": blob.sha256, "size": blob.size}, 0
        while blob.size - offset > self.message_bytes(site, "put"):
            self.check_deadline(started)
            chunk, sent_at = read_range(blob, offset, self.message_bytes(site, "put")), time.monotonic()
            offset = self.call(site, "put", put | {"offset": offset}, chunk)[0].get("received", -1)
            self._adapt(site, "put", time.monotonic() - sent_at)
            if not isinstance(offset, int) or not 0 <= offset <= blob.size:
                raise FleetError(f"reply to put has received = {offset!r}, not 0 to {blob.size}")
        return offset

    def download_parameters(self, site: str, blob: BlobHeader, first: Bytes, started: float) -> Blob:
        """Download a file whose ``first`` bytes have been received; repeat the download if it is damaged."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{site}.safetensors"
        for _ in range(MAX_ATTEMPTS):
            path.unlink(missing_ok=True)  # the journal may have linked to the previous one
            file, offset = HashedFile(path), len(first)
            file.append(first)
            while offset < blob.size:
                self.check_deadline(started)
                stop = min(blob.size, offset + self.message_bytes(site, "get"))
                file.append(self._get(site, blob, offset, stop))
                offset = stop
            if complete := file.finish(blob.sha256, synced=True):
                return complete
            first = b""
            logger.info("%s: parameters arrived damaged, downloading them again", site)
        raise FleetError(f"parameters arrived damaged {MAX_ATTEMPTS} times; check the network and the disk")

    def has_chunks(self, site: str) -> bool:
        """Return whether chunks of an interrupted ``download_samples`` are kept."""
        return self._chunk_folder(site).exists()

    def download_samples(self, site: str, blob: BlobHeader, first: Bytes, started: float) -> Blob:
        """Download the chunks that are missing, each verified by its hash, and join all chunks to a file."""
        folder = self._chunk_folder(site)
        folder.mkdir(parents=True, exist_ok=True)
        missing = [n for n, digest in enumerate(blob.chunks) if not (folder / digest).exists()]
        damaged, wanted, content = 0, missing[: math.ceil(len(first) / CHUNK)], first
        while missing:
            if not content:
                self.check_deadline(started)
                count = self.message_bytes(site, "get") // CHUNK
                wanted = [n for i, n in enumerate(missing[:count]) if n == missing[0] + i]  # consecutive ones
                content = self._get(site, blob, wanted[0] * CHUNK, min(blob.size, (wanted[-1] + 1) * CHUNK))
            for i, n in enumerate(wanted):
                chunk = content[i * CHUNK : (i + 1) * CHUNK]
                if hashlib.sha256(chunk).hexdigest() == blob.chunks[n]:
                    write_durably(folder / blob.chunks[n], chunk)
                    missing.remove(n)
                else:
                    damaged += 1
                    logger.info("%s: chunk %d arrived damaged, downloading it again", site, n)
            if damaged > MAX_ATTEMPTS + len(blob.chunks) // 100:
                raise FleetError(f"{damaged} chunks arrived damaged; check the network and the disk")
            content = b""
        path = self._folder / f"{site}.safetensors"
        path.unlink(missing_ok=True)
        file = HashedFile(path)
        for name in blob.chunks:
            file.append((folder / name).read_bytes())
        shutil.rmtree(folder)
        complete = file.finish(blob.sha256, synced=True)
        if complete is None or complete.size != blob.size:
            raise FleetError(f"joined chunks do not have the hash {blob.sha256} and {blob.size} bytes")
        return complete

    def _chunk_folder(self, site: str) -> Path:
        return self._folder / f"chunks-{site}"

    def _get(self, site: str, blob: BlobHeader, start: int, stop: int) -> Bytes:
        get, sent_at = {"sha256": blob.sha256, "start": start, "stop": stop}, time.monotonic()
        content = self.call(site, "get", get, max_bytes=stop - start)[1]
        self._adapt(site, "get", time.monotonic() - sent_at)
        return content

    def _adapt(self, site: str, direction: Direction, seconds: float) -> None:
        """Double the next message's size after a fast message, halve it after a slow one."""
        chunks = self._chunks.get((site, direction), 1)
        if seconds < 0.5:
            self._chunks[site, direction] = min(MAX_CHUNKS, 2 * chunks)
        elif seconds > 2:
            self._chunks[site, direction] = max(1, chunks // 2)


def read_range(blob: Blob, offset: int, size: int) -> Bytes:
    """Return ``size`` bytes of a file, from ``offset`` on."""
    if isinstance(blob.source, bytes):
        return memoryview(blob.source)[offset : offset + size]
    with blob.source.open("rb") as file:
        file.seek(offset)
        return file.read(size)
