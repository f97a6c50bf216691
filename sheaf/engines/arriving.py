"""Tensors on their way into a file, hashed as they come: nothing is read again to be checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sheaf.blob import Blob

Piece = bytes | bytearray | memoryview


class Arriving:
    """A file that is written from its first byte to its last.

    Args:
        path: a file that lies there already is written over, which is faster than taking new room.
        size: how many bytes at its beginning came before.

    Attributes:
        size: how many bytes came.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._digest = hashlib.sha256()
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        while self._file.tell() < size and (piece := self._file.read(min(1 << 20, size - self._file.tell()))):
            self._digest.update(piece)

    def add(self, piece: Piece) -> None:
        """Appends a piece."""
        left = memoryview(piece)
        while left:  # a full disk or a signal may cut a write short
            left = left[self._file.write(left) :]
        self._digest.update(piece)
        self.size += len(piece)

    def rename(self, path: Path) -> None:
        """The file has another name from now on."""
        self.path = self.path.replace(path)

    def finish(self, sha256: str, *, synced: bool = False) -> Blob | None:
        """What came, or None, and no file, where it is not what ``sha256`` says.

        Args:
            synced: whether it must be there after a power failure too.
        """
        whole = self._digest.hexdigest() == sha256
        self._file.truncate(self.size)
        if whole and synced:
            os.fsync(self._file.fileno())
        self._file.close()
        if not whole:
            self.path.unlink()
            return None
        return Blob(self.path, sha256, self.size, self.path if synced else None)
