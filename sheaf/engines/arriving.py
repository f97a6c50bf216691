"""Tensors on their way into a file, hashed as they come: nothing is read again to be checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sheaf.blob import Blob

Piece = bytes | bytearray | memoryview


class Arriving:
    """A file that grows from its first byte to its last. What lies there already is its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        while piece := self._file.read(1 << 20):
            self._digest.update(piece)
        self.size = self._file.tell()

    def add(self, piece: Piece) -> None:
        """Appends a piece."""
        left = memoryview(piece)
        while left:  # a full disk or a signal may cut a write short
            left = left[self._file.write(left) :]
        self._digest.update(piece)
        self.size += len(piece)

    def finish(self, sha256: str, *, synced: bool = False) -> Blob | None:
        """What came, or None, and no file, where it is not what ``sha256`` says.

        Args:
            synced: whether it must be there after a power failure too.
        """
        whole = self._digest.hexdigest() == sha256
        if whole and synced:
            os.fsync(self._file.fileno())
        self._file.close()
        if not whole:
            self.path.unlink()
            return None
        return Blob(self.path, sha256, self.size, self.path if synced else None)
