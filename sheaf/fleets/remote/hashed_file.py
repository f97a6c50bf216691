"""Writing a received file while hashing it, so that verification needs no second read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sheaf.core.tensor_file import Blob

Bytes = bytes | bytearray | memoryview


class HashedFile:
    """A file that is appended to and hashed at the same time.

    Args:
        path: the file. An existing file is overwritten in place, which is faster than allocating new blocks.
        size: number of bytes at its start that are valid already; they are read and hashed.

    Attributes:
        size: number of bytes written.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        path.touch()
        with path.open("rb") as file:
            while self.size < size and (content := file.read(min(1 << 20, size - self.size))):
                self._hash.update(content)
                self.size += len(content)

    def append(self, content: Bytes) -> None:
        """Write ``content`` after the bytes written so far."""
        with self.path.open("r+b") as file:
            file.seek(self.size)
            file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def rename(self, path: Path) -> None:
        """Rename the file."""
        self.path = self.path.replace(path)

    def finish(self, sha256: str, *, synced: bool = False) -> Blob | None:
        """Return the file as a ``Blob``; delete it and return None if its hash is not ``sha256``.

        Args:
            synced: call fsync on the file first.
        """
        if self._hash.hexdigest() != sha256:
            self.path.unlink()
            return None
        with self.path.open("r+b") as file:
            file.truncate(self.size)
            if synced:
                os.fsync(file.fileno())
        return Blob(self.path, sha256, self.size, self.path if synced else None)
