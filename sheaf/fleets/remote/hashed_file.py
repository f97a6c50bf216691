"""Tensors on their way into a file, hashed as they come: nothing is read again to be checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sheaf.core.tensor_file import Blob

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
        self.size = 0
        self._digest = hashlib.sha256()
        path.touch()
        with path.open("rb") as file:
            while self.size < size and (piece := file.read(min(1 << 20, size - self.size))):
                self._digest.update(piece)
                self.size += len(piece)

    def add(self, piece: Piece) -> None:
        """Appends a piece."""
        with self.path.open("r+b") as file:
            file.seek(self.size)
            file.write(piece)
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
        if self._digest.hexdigest() != sha256:
            self.path.unlink()
            return None
        with self.path.open("r+b") as file:
            file.truncate(self.size)
            if synced:
                os.fsync(file.fileno())
        return Blob(self.path, sha256, self.size, self.path if synced else None)
