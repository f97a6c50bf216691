"""The log of a journal: checked lines of JSON, appended and read by their position."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sheaf.core.errors import RunFolderError


def line_of(body: bytes) -> bytes:
    """Return the line of an encoded entry: its CRC-32 and the entry."""
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the position and the entry of each line, and cut off an incomplete last line at the end.

    Raises:
        RunFolderError: a line is damaged.
    """
    if not file.exists():
        return
    size, valid = file.stat().st_size, 0  # bytes of complete lines
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n") and (entry := _entry_of(line)) is not None:
                yield valid, entry
                valid += len(line)
            elif valid + len(line) < size or line.endswith(b"\n"):
                raise RunFolderError(
                    f"{file}: line {number} is damaged; the run cannot be resumed, start it again"
                )
    os.truncate(file, valid)


def read_line(file: Path, position: int) -> dict[str, Any]:
    """Return the entry of the line at a position.

    Raises:
        RunFolderError: the line is damaged.
    """
    with file.open("rb") as lines:
        lines.seek(position)
        entry = _entry_of(lines.readline())
    if entry is None:
        raise RunFolderError(f"{file}: damaged while the run read it; start the run again")
    return entry


def _entry_of(line: bytes) -> dict[str, Any] | None:
    body = line[9:].rstrip(b"\n")
    if line[:9] != b"%08x " % zlib.crc32(body):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry
