"""Durable writing: a file is there whole after a crash, or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from sheaf.core.thread_pool import thread_pool

SYNCED = 16
"""How many files are synced side by side: a disk syncs many in little more time than one."""


AHEAD = threading.Semaphore(4 * SYNCED)
"""How many syncs those that write may be ahead of the disk: each holds its files open meanwhile."""


def write_durably(path: Path, content: bytes | bytearray | memoryview, named: bool = True) -> None:
    """Writes a file that, after a crash at any moment, is there whole or not there at all.

    Args:
        named: see ``Blob.write``.
    """
    write(path, content)
    if named:
        sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file's bytes durable, or the names of a folder's files."""
    _sync([os.open(path, os.O_RDONLY)])


def sync_soon(*paths: Path) -> Future[None]:
    """``sync`` of files or folders while others go on, whatever becomes of their names meanwhile."""

    def synced() -> None:
        try:
            _sync(handles)
        finally:
            AHEAD.release()

    handles = [os.open(path, os.O_RDONLY) for path in paths]
    AHEAD.acquire()
    return thread_pool("disk", SYNCED).submit(synced)


def _sync(handles: Sequence[int]) -> None:
    try:
        for handle in handles:
            os.fsync(handle)
    finally:
        for handle in handles:
            os.close(handle)


def write(
    path: Path, content: bytes | bytearray | memoryview, over: Path | None = None, synced: bool = True
) -> None:
    """Write a file through a temporary name; see ``Blob.write`` for ``over``.

    Args:
        synced: whether the content is on the disk on return. The name is durable after ``sync(path.parent)``.
    """
    half = path.with_name(path.name + ".part")
    half.unlink(missing_ok=True)
    if over is not None and over.stat().st_nlink == 1:
        over.replace(half)
    try:
        with half.open("r+b" if half.exists() else "wb") as file:
            file.write(content)
            file.truncate()
            file.flush()
            if synced:
                os.fsync(file.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def link(there: Path, path: Path) -> bool:
    """Gives the file ``there`` a second name. False where that cannot be: it is gone, or on another disk."""
    try:
        os.link(there, path)
    except FileExistsError:
        return _link_over(there, path)
    except OSError:
        return False
    return True


def _link_over(there: Path, path: Path) -> bool:
    """The same where ``path`` is the name of a file, until it is that of ``there``."""
    half = path.with_name(path.name + ".part")
    try:
        half.unlink(missing_ok=True)
        os.link(there, half)
    except OSError:
        return False
    half.replace(path)
    half.unlink(missing_ok=True)  # where both were names of one file already, replacing did nothing
    return True
