"""A device between jobs: keeps FLARE's process running, and prints why it cannot connect.

``sheaf edge join`` checks a device's files and then replaces itself by this module (``python -m
sheaf.fleets.nvflare.wait``), so that an idle device does not hold torch in memory.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from sheaf.fleets.nvflare.housekeeping import Housekeeping
from sheaf.fleets.nvflare.processes import REJECTIONS, start_edge, stop

MIN_PAUSE = 2.0
"""Minimum time before a restart of FLARE's process, in seconds; it doubles with each restart."""

MAX_PAUSE = 60.0
"""Maximum time before a restart, in seconds. After a longer run of the process, it is the minimum again."""


def wait(folder: Path, edge: str) -> int:
    """Keep FLARE's process running until SIGINT or SIGTERM; return the exit code."""
    stopped = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    flare, pause = folder / "flare", MIN_PAUSE
    process: subprocess.Popen[bytes] | None = None
    logs = _Tail(flare / "log.txt", flare / "output.txt")
    keeper = Housekeeping(flare)
    printed: set[str] = set()
    next_start, started = 0.0, 0.0
    print(f"{edge}: waiting for work; Ctrl-C stops", flush=True)
    try:
        while not stopped:
            now = time.monotonic()
            if process is None and now >= next_start:
                process, started = start_edge(flare, edge, {"SHEAF_EDGE": str(folder)}), now
            elif process is not None and process.poll() is not None:
                stop(process)
                process = None
                pause = MIN_PAUSE if now - started > MAX_PAUSE else min(MAX_PAUSE, 2 * pause)
                next_start = now + pause
            for line in logs.new_lines():
                for pattern, message in REJECTIONS:
                    if pattern.search(line) and message not in printed:
                        printed.add(message)
                        print(f"{edge}: {message}", flush=True)
            keeper.tick()
            time.sleep(0.5)
    finally:
        if process is not None:
            stop(process)
    return 0


class _Tail:
    """The lines that are appended to some files."""

    def __init__(self, *paths: Path) -> None:
        self._sizes = {path: path.stat().st_size if path.exists() else 0 for path in paths}

    def new_lines(self) -> list[str]:
        lines: list[str] = []
        for path, previous in self._sizes.items():
            size = path.stat().st_size if path.exists() else 0
            if size == previous:
                continue
            with path.open("rb") as file:
                file.seek(previous if size > previous else 0)  # smaller: the log was rotated
                lines += file.read().decode(errors="replace").splitlines()
            self._sizes[path] = size
        return lines


if __name__ == "__main__":
    sys.exit(wait(Path(sys.argv[1]), sys.argv[2]))
