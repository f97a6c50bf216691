"""Stores of decoded examples, which are appended in order: memory, or memory-mapped files."""

from __future__ import annotations

import math
import mmap
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sheaf.core.available_memory import available_memory
from sheaf.core.errors import DataError
from sheaf.data.example_cache import CacheError, cache_errors

Array = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Shape = tuple[int, ...]

FRACTION = 0.9  # of the free space of a disk
BUFFER = 2**20  # bytes that are written to a file at a time
# Python names the flag from 3.13 on; both values are those of the kernels.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", {"linux": 0x4000, "darwin": 0x40}.get(sys.platform, 0))


class Column(Protocol):
    """An array that grows along its first axis."""

    def append(self, values: Array) -> None:
        """Add (n, ...) values."""

    def finish(self) -> Tensor:
        """Return all values."""


class ArrayStore(Protocol):
    """A place for the arrays of a dataset."""

    def reserve(self, subject: str, size: int, setting: str) -> None:
        """Check that ``size`` bytes fit.

        Args:
            subject: names the examples in messages, such as "4096 images".
            size: of all of them.
            setting: the setting that makes an example smaller.
        """

    def column(self, name: str, count: int, shape: Shape, dtype: npt.DTypeLike) -> Column:
        """Return an empty array for at most ``count`` values, which replaces another one of that name."""


class MemoryStore:
    """Arrays in memory.

    Args:
        hint: ends the message if they do not fit.
    """

    def __init__(self, hint: str = "") -> None:
        self._hint = hint

    def reserve(self, subject: str, size: int, setting: str) -> None:
        """Check that ``size`` bytes fit.

        Raises:
            DataError: they exceed the available memory.
        """
        available = available_memory()
        if size > available:
            raise DataError(
                f"{subject} need {size / 1e9:.1f} GB of memory, but {available / 1e9:.1f} GB are available; "
                f"set a smaller {setting}, or data.limit{self._hint}"
            )

    def column(self, name: str, count: int, shape: Shape, dtype: npt.DTypeLike) -> Column:
        """Return an empty array for at most ``count`` values."""
        return _MemoryColumn(np.empty((count, *shape), dtype))


class FileStore:
    """Arrays in ``.npy`` files of a folder, written in order and then mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: list[_FileColumn] = []

    def close(self) -> None:
        """Close the files that are not finished."""
        for column in self._columns:
            column.close()

    def reserve(self, subject: str, size: int, setting: str) -> None:
        """Check that ``size`` bytes fit.

        Raises:
            CacheError: they exceed the fraction ``FRACTION`` of the free space of the disk.
        """
        free = shutil.disk_usage(self._folder).free
        if size > FRACTION * free:
            raise CacheError(
                f"{subject} need {size / 1e9:.1f} GB, but the disk of {self._folder.parent} has "
                f"{free / 1e9:.1f} GB free, of which the cache takes at most {FRACTION:.0%}"
            )

    def column(self, name: str, count: int, shape: Shape, dtype: npt.DTypeLike) -> Column:
        """Return an empty file for at most ``count`` values.

        A column before it is complete when the next one is made.

        Raises:
            CacheError: the file cannot be written.
        """
        self.close()
        self._columns = [_FileColumn(self._folder / f"{name}.npy", shape, np.dtype(dtype))]
        return self._columns[0]


class _MemoryColumn:
    def __init__(self, values: Array) -> None:
        self._values = values
        self._length = 0

    def append(self, values: Array) -> None:
        self._values[self._length : self._length + len(values)] = values
        self._length += len(values)

    def finish(self) -> Tensor:
        return torch.from_numpy(self._values[: self._length])


class _FileColumn:
    """Values in a file. A full disk is an error of a write; of a store to a mapping, it would be SIGBUS."""

    def __init__(self, path: Path, shape: Shape, dtype: np.dtype[np.generic]) -> None:
        self._path = path
        self._shape = shape
        self._dtype = dtype
        self._length = 0
        with cache_errors(path):
            path.unlink(missing_ok=True)  # a mapping of an earlier column must not change
            self._file = path.open("wb", BUFFER)
            self._write_header()

    def append(self, values: Array) -> None:
        with cache_errors(self._path):
            self._file.write(np.ascontiguousarray(values).data)
        self._length += len(values)

    def finish(self) -> Tensor:
        with cache_errors(self._path):
            self._file.seek(0)
            self._write_header()
            self._file.close()
            return map_array(self._path)

    def close(self) -> None:
        with suppress(OSError):  # of the rest of the buffer
            self._file.close()

    def _write_header(self) -> None:
        """Write the header, which numpy pads so that a greater length does not move the values."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


def map_array(path: Path) -> Tensor:
    """Return the array in a ``.npy`` file as a tensor that is read from the disk on demand.

    The mapping is private: a program that writes to the tensor changes its own copy of a page, not the file.
    It reserves no memory, as the system refuses private mappings above the size of its memory otherwise.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is truncated or not a ``.npy`` file.
    """
    layout = np.load(path, mmap_mode="r", allow_pickle=False)
    if layout.size == 0:
        return torch.from_numpy(np.empty(layout.shape, layout.dtype))
    if path.stat().st_size != layout.offset + layout.nbytes:
        raise ValueError(f"{path} has another size than its header states")
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
    count = math.prod(layout.shape)
    flat = np.frombuffer(pages, layout.dtype, count, layout.offset)
    return torch.from_numpy(flat.reshape(layout.shape))
