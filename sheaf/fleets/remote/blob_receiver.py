"""Receiving tensor files on a device: chunks are appended in order, and an interrupted upload is resumed."""

from __future__ import annotations

import threading
from pathlib import Path

from sheaf.core.errors import FleetError
from sheaf.core.tensor_file import Blob
from sheaf.fleets.remote.hashed_file import Bytes, HashedFile
from sheaf.fleets.remote.messages import Put


class BlobReceiver:
    """A folder of received tensor files, named by their hash; partial files are named ``HASH.BYTES``.

    Args:
        folder: created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._partial: HashedFile | None = None

    def receive(self, put: Put, chunk: Bytes, *, reuse: bool) -> int:
        """Append a chunk, unless it was received before; return the number of bytes received of the file.

        Args:
            reuse: whether older files of the folder may be overwritten.

        Raises:
            FleetError: the complete file does not have the hash of ``put``.
        """
        path = self._folder / put.sha256
        with self._lock:  # a repeated message may arrive while the first one is being handled
            if path.exists():
                return put.size
            file = self._partial
            if file is None or not file.path.name.startswith(put.sha256):
                file = self._partial = self._open(put.sha256, reuse)
            new = memoryview(chunk)[file.size - put.offset :] if put.offset <= file.size else b""
            if file.size + len(new) <= put.size:
                file.append(new)
                file.rename(_partial_path(path, file.size))
            if file.size == put.size:
                self._partial = None
                if file.finish(put.sha256) is None:
                    raise FleetError(f"received tensors do not have the hash {put.sha256}")
                file.rename(path)
            return file.size

    def take(self, put: Put | None) -> Blob | None:
        """Return the received file, and delete all others."""
        for path in self._folder.iterdir():
            if put is None or path.name != put.sha256:
                path.unlink()
        return None if put is None else Blob(self._folder / put.sha256, put.sha256, put.size)

    def _open(self, sha256: str, reuse: bool) -> HashedFile:
        """Return the partial file of this hash, else an old file to overwrite, else a new file."""
        path = self._folder / sha256
        for partial in self._folder.glob(f"{sha256}.*"):
            return HashedFile(partial, int(partial.suffix[1:]))
        if reuse:
            for old in self._folder.iterdir():
                if old.stat().st_nlink == 1:  # the model store links to files that it keeps
                    return HashedFile(old.replace(_partial_path(path, 0)))
        return HashedFile(_partial_path(path, 0))


def _partial_path(path: Path, size: int) -> Path:
    """Return the name of a partial file: its length may exceed the ``size`` bytes received so far."""
    return path.with_name(f"{path.name}.{size}")
