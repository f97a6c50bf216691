"""The image files of a dataset's training examples, which an edge can share instead of tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sheaf.core.errors import SheafError
from sheaf.core.notes import hold_notes
from sheaf.data.readers.encoded import EncodedSplit


class SampleFiles:
    """A ``FileReader`` of the files of a folder, which is listed when the first one is read.

    Args:
        split: lists the training split.
        count: number of decoded examples. If files were left out of these, none can be read.
    """

    def __init__(self, split: Callable[[], EncodedSplit], count: int) -> None:
        self._split = split
        self._count = count
        self._lock = threading.Lock()
        self._paths: Sequence[Path] | None = None

    def __call__(self, position: int, limit: int) -> bytes:
        """Return the file of an example; empty if it cannot be read or has more than ``limit`` bytes."""
        with self._lock:
            if self._paths is None:
                self._paths = self._list()
        if len(self._paths) != self._count:
            return b""
        path = self._paths[position]
        try:
            return path.read_bytes() if path.stat().st_size <= limit else b""
        except OSError:
            return b""

    def _list(self) -> Sequence[Path]:
        try:
            with hold_notes():  # reading the dataset has logged them
                return self._split().paths or ()
        except SheafError:  # the folder has changed since
            return ()
