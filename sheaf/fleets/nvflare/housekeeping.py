"""Bounds for the files that FLARE's processes leave in their folder. An idle device imports this module.

Private parts of FLARE: the names ``audit.log`` and ``output.txt`` of logs that it appends to without limit,
and the folders of jobs, which are named by UUIDs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

LOGS = ("audit.log", "output.txt")
LARGEST = 5_000_000
"""Size in bytes above which a log is copied to ``NAME.1`` and emptied; its process keeps it open."""

JOBS = 3
"""Number of folders of jobs that are kept, the newest ones."""

PERIOD = 60.0
"""Time between two checks, in seconds."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Housekeeping:
    """Limits logs and folders of jobs periodically.

    Args:
        workspace: folder of FLARE's process.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._next = 0.0

    def tick(self) -> None:
        """Do the work, if ``PERIOD`` seconds have passed since the last time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PERIOD
        with contextlib.suppress(OSError):  # a full disk: try again later
            limit_logs(self._workspace)
            delete_old_jobs(self._workspace)


def limit_logs(workspace: Path) -> None:
    """Copy and empty the logs that are too large."""
    for path in (workspace / name for name in LOGS):
        if path.exists() and path.stat().st_size > LARGEST:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def delete_old_jobs(workspace: Path) -> None:
    """Delete the folders of all but the newest jobs."""
    jobs = [path for path in workspace.iterdir() if _UUID.fullmatch(path.name)]
    for old in sorted(jobs, key=lambda path: path.stat().st_mtime, reverse=True)[JOBS:]:
        shutil.rmtree(old, ignore_errors=True)
