"""The memory that this process can still use, within the limits of its control groups (containers)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIPS = Path("/proc/self/cgroup")
FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
"""Version of control groups -> the files of a group's limit and use."""


def available_memory() -> int:
    """Return the bytes of memory that this process can use without swapping.

    That is the least of the free memory of the machine and of the remainder below the limit of each control
    group that contains the process. Cached contents of files count as free: the kernel drops them on demand.
    """
    free: int = psutil.virtual_memory().available
    return max(0, min([free, *_remainders()]))


def _remainders() -> Iterator[int]:
    """Yield the bytes below the limit of each control group that contains this process."""
    for line in _read(MEMBERSHIPS).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mount, version = MOUNT, 2
        elif "memory" in controllers.split(","):
            mount, version = MOUNT / "memory", 1
        else:
            continue
        # In a container the path may be the host's, of which only the mounted root is visible.
        group = mount / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield from _remainder(folder, *FILES[version])


def _remainder(folder: Path, limit_file: str, use_file: str) -> Iterator[int]:
    limit, use = _read(folder / limit_file).strip(), _read(folder / use_file).strip()
    if limit.isdigit() and use.isdigit():  # "max" is no limit
        counts = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").strip().splitlines())
        cached = int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))
        yield int(limit) - int(use) + cached


def _read(path: Path) -> str:
    """Return the content of a file of the kernel; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
