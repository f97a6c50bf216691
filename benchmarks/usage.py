"""Memory of processes and disk space of folders."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

MB = 1_000_000


def pss(pid: int) -> float:
    """Return the proportional set size of a process in megabytes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).memory_full_info().pss / MB)
    return 0.0


def disk_bytes(folder: Path) -> int:
    """Return the disk space of a folder's files in bytes; a file of several names counts once."""
    sizes: dict[int, int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            status = path.lstat()
            sizes[status.st_ino] = 512 * status.st_blocks
    return sum(sizes.values())


def process_trees() -> tuple[list[list[psutil.Process]], list[list[psutil.Process]]]:
    """Return the processes of each rehearsed device of this process, and of each other child of it."""
    devices: list[list[psutil.Process]] = []
    others: list[list[psutil.Process]] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = [child, *child.children(recursive=True)]
            (devices if "sheaf.fleets.nvflare.wait" in child.cmdline() else others).append(tree)
    return devices, others
