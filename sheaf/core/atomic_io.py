"""Atomic, durable writing: after a crash, a file is complete or absent."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

FSYNC_THREADS = 16
"""Concurrent fsyncs: a disk completes many in little more time than one."""

PENDING_FSYNCS = threading.Semaphore(4 * FSYNC_THREADS)
"""Limits the fsyncs that are queued, because each keeps its files open."""


def write_durably(path: Path, content: bytes | bytearray | memoryview, named: bool = True) -> None:
    """Write a file that, after a crash at any moment, is complete or absent.

    Args:
        path: replaced if it exists.
        content: the file's bytes.
        named: also make the file's name durable. If False, call ``sync(path.parent)`` later.
    """
    write(path, content)
    if named:
        sync(path.parent)


def sync(path: Path) -> None:
    """Fsync a file, or a folder, which makes the names of its files durable."""
    _sync_and_close([os.open(path, os.O_RDONLY)])


def sync_soon(*paths: Path) -> Future[None]:
    """Fsync files or folders on another thread, even if they are renamed or deleted meanwhile.

    Blocks while too many fsyncs are queued.
    """

    def sync_all() -> None:
        try:
            _sync_and_close(handles)
        finally:
            PENDING_FSYNCS.release()

    from sheaf.core.thread_pool import thread_pool  # imports torch, which takes a second

    handles = [os.open(path, os.O_RDONLY) for path in paths]
    PENDING_FSYNCS.acquire()
    return thread_pool("disk", FSYNC_THREADS).submit(sync_all)


def _sync_and_close(handles: Sequence[int]) -> None:
    try:
        for handle in handles:
            os.fsync(handle)
    finally:
        for handle in handles:
            os.close(handle)


def write(
    path: Path, content: bytes | bytearray | memoryview, over: Path | None = None, synced: bool = True
) -> None:
    """Write a file under a temporary name, then rename it.

    Args:
        path: replaced if it exists. The name is durable after ``sync(path.parent)``.
        content: the file's bytes.
        over: an obsolete file whose disk blocks are reused; see ``Blob.write``.
        synced: fsync the content before the rename.
    """
    temporary = _temporary_name(path)
    temporary.unlink(missing_ok=True)
    if over is not None and over.stat().st_nlink == 1:
        over.replace(temporary)
    try:
        with temporary.open("r+b" if temporary.exists() else "wb") as file:
            file.write(content)
            file.truncate()
            file.flush()
            if synced:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link(source: Path, path: Path) -> bool:
    """Make ``path`` a hard link to the file ``source``, replacing a file at ``path``.

    Returns False if no link can be made: ``source`` is missing or on another disk.
    """
    try:
        os.link(source, path)
    except FileExistsError:
        return _replace_by_link(source, path)
    except OSError:
        return False
    return True


def _replace_by_link(source: Path, path: Path) -> bool:
    temporary = _temporary_name(path)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
    except OSError:
        return False
    temporary.replace(path)
    temporary.unlink(missing_ok=True)  # rename does nothing if both names already were links to one file
    return True


def _temporary_name(path: Path) -> Path:
    return path.with_name(path.name + ".part")
