"""The tensor files of a journal, in its folder: one for each answer, or link to a file of several, and merge.

A file is deleted once nothing can open it any more; see ``leases``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sheaf.core import atomic_io
from sheaf.core.atomic_io import sync_soon
from sheaf.core.errors import RunFolderError
from sheaf.core.lazy_blob import LazyBlob
from sheaf.core.tensor_file import Blob, with_hashes
from sheaf.runtime.leases import Leases, TensorLease

FileEntry = dict[str, Any]
"""A file in an entry of the journal: ``file``, its name; ``xxh3`` and ``size`` of the blob in it."""


class Stored(NamedTuple):
    """A blob in a file of the journal.

    Attributes:
        blob: there, with the lease of the file.
        path: the file.
        syncing: the fsync of its bytes, None if they are durable.
    """

    blob: Blob
    path: Path
    syncing: Future[None] | None

    @property
    def entry(self) -> FileEntry:
        """The file in an entry of the journal."""
        return _entry(self.blob, self.path)


class JournalFiles:
    """The tensor files of one journal.

    Args:
        folder: of the journal.

    Attributes:
        leases: of the files, and of tensors without a file.
    """

    def __init__(self, folder: Path) -> None:
        self.leases = Leases()
        self._folder = folder
        self._shared: dict[tuple[int, int], Path] = {}  # (call, inode) -> link in this folder

    def store(self, call: int, site: str, blob: Blob) -> Stored:
        """Store a blob in this folder.

        Blobs of one file share one link to it. A blob that is in this folder already stays where it is.
        """
        if isinstance(blob.lease, TensorLease) and blob.lease.path is not None:
            return Stored(blob, blob.lease.path, None)
        if isinstance(blob, LazyBlob):
            return self.store(call, site, blob.found())
        path = self._folder / f"{call:06d}-{site}.safetensors"
        if blob.lies_at is None and not isinstance(source := blob.source, Path):
            content = with_hashes(Blob(source, blob.digest, len(source)), blob)
            atomic_io.write(path, source, synced=False)
            stored = Blob(path, blob.digest, len(source), path, lease=self.leases.of(path))
            vars(stored)["key"] = content.key
            return Stored(with_hashes(stored, content), path, sync_soon(path))
        key = 0, 0
        if blob.offset is not None and blob.lies_at is not None:
            key = call, blob.lies_at.stat().st_ino
            if (link := self._shared.get(key)) is not None:
                linked = replace(blob, source=link, lies_at=link, lease=self.leases.of(link))
                return Stored(with_hashes(linked, blob), link, blob.syncing)
        stored = blob.write(path, named=False)
        if stored.offset is not None:
            self._shared[key] = path
        leased = with_hashes(replace(stored, lease=self.leases.of(path)), stored)
        return Stored(leased, path, blob.syncing)

    def forget_shared(self) -> None:
        """Forget the links of a call: the files of the next one have other names."""
        self._shared.clear()

    def plan(self, name: str, content: Blob) -> tuple[FileEntry, TensorLease]:
        """Return the entry and the lease of a file that ``write`` will write."""
        path = self._folder / name
        lease = self.leases.of(path)
        lease.unwritten = content
        return _entry(content, path), lease

    def write(self, planned: Iterable[TensorLease]) -> None:
        """Write planned files; their names are durable once the folder is synced."""
        for lease in planned:
            if lease.unwritten is not None and lease.path is not None:
                lease.unwritten.write(lease.path, named=False)
                self.leases.written(lease)

    def load(self, entry: FileEntry, site: str | None) -> LazyBlob:
        """Return the blob in a file, checked when it is opened.

        Args:
            entry: the file.
            site: the blob's name if the file contains several; see ``Blob.at``.
        """
        path = self._folder / entry["file"]
        lease = self.leases.of(path)
        reference = weakref.ref(lease)

        @cache
        def in_file() -> Blob:
            blob = Blob.at(path, site) if path.exists() else None
            if blob is None or blob.key != entry["xxh3"]:
                raise RunFolderError(f"{path}: missing or damaged; the run cannot be resumed, start it again")
            return blob

        def find() -> Blob:
            lease = reference()
            unwritten = None if lease is None else lease.unwritten
            return unwritten or in_file()

        return LazyBlob(find, entry["size"], entry["xxh3"], lease)


def _entry(blob: Blob, path: Path) -> FileEntry:
    return {"xxh3": blob.key, "size": blob.size, "file": path.name}
