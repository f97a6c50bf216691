"""Leases of the journal's tensors: when a file is no longer needed, and which tensors are kept."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sheaf.core.tensor_file import Blob


class TensorLease:
    """The lease of the tensors of one entry of the journal. See ``core.tensor_file.Lease``.

    Attributes:
        path: the file; None for tensors that the journal does not hold.
        unwritten: the content of the file, until it is written.
    """

    def __init__(self, leases: Leases, path: Path | None, keep: Callable[[Blob], Blob] | None = None) -> None:
        self.path = path
        self.unwritten: Blob | None = None
        self._leases = leases
        self._keep = keep
        self._kept: Blob | None = None

    def read(self, blob: Blob) -> Blob:
        """Keep the tensors until the run ends if the method itself reads them; see ``Leases``."""
        if self._kept is not None:
            return self._kept
        if self._leases.internal:
            return blob
        if self._keep is not None:
            self._kept = self._keep(blob)
            return self._kept
        self.pin()
        return blob

    def pin(self) -> None:
        """Keep the file until the run ends."""
        if self.path is not None:
            self._leases.pin(self, self.path)


class Leases:
    """The leases of one journal.

    A file whose last lease is gone is obsolete, because nothing can open it any more. But a resumed run
    executes the method again, and the method then opens what it opened before. The journal answers calls and
    merges, which therefore open nothing. Tensors that the method reads by itself are kept.
    """

    def __init__(self) -> None:
        self._of_file: weakref.WeakValueDictionary[Path, TensorLease] = weakref.WeakValueDictionary()
        self._released: deque[Path] = deque()  # finalizers run on any thread, and may not take a lock
        self._pinned: set[Path] = set()
        self._to_write: set[TensorLease] = set()  # pinned ones
        self._depth = 0

    @property
    def internal(self) -> bool:
        """Whether a call or a merge is under way."""
        return self._depth > 0

    @contextmanager
    def internally(self) -> Iterator[None]:
        """Open tensors inside the block for a call or a merge, whose result the journal records."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def of(self, path: Path) -> TensorLease:
        """Return the lease of a file; blobs in one file share it."""
        lease = self._of_file.get(path)
        if lease is None:
            lease = self._of_file[path] = TensorLease(self, path)
            weakref.finalize(lease, self._released.append, path).atexit = False
        return lease

    def volatile(self, keep: Callable[[Blob], Blob]) -> TensorLease:
        """Return the lease of tensors without a file.

        Args:
            keep: writes them to a file and returns the blob there.
        """
        return TensorLease(self, None, keep)

    def pin(self, lease: TensorLease, path: Path) -> None:
        """Keep a file until the run ends."""
        self._pinned.add(path)
        if lease.unwritten is not None:
            self._to_write.add(lease)

    def written(self, lease: TensorLease) -> None:
        """Drop the content of a lease, whose file has been written."""
        lease.unwritten = None
        self._to_write.discard(lease)

    def take_released(self) -> list[Path]:
        """Return the files whose leases ended since the last call and that nothing keeps."""
        released = []
        while self._released:
            released.append(self._released.popleft())
        return [path for path in released if path not in self._pinned and path not in self._of_file]
