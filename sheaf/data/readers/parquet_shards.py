"""Open parquet shards, with their errors as DataError."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sheaf.core.errors import DataError, first_line


@dataclass(frozen=True)
class Shard:
    """An open parquet file.

    Attributes:
        path: of the file.
        file: with its footer read.
    """

    path: Path
    file: pq.ParquetFile

    @property
    def schema(self) -> pa.Schema:
        """Return the columns with the Hub's metadata."""
        return self.file.schema_arrow

    def location(self, row: int) -> str:
        """Return the name of a row, counted from 0, in messages."""
        return f"row {row} of {self.path}"


def open_shard(path: Path) -> Shard:
    """Open the file and read its footer."""
    return Shard(path, guarded(path, partial(pq.ParquetFile, path, memory_map=True)))


def guarded(path: Path, read: Callable[[], Any]) -> Any:
    """Return ``read()``, with its errors as DataError."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a parquet file: {first_line(error)}") from error
