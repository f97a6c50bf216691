"""A device that waits for its cloud: keeps FLARE's process alive, and says what matters on its terminal.

``sheaf edge join`` checks everything and then replaces itself by this module (``python -m
sheaf.fleets.nvflare.wait``), so that torch, which the checks need, is not in memory while the device idles.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from sheaf.fleets.nvflare.processes import start_edge, stop

ENDED = 2.0
"""Seconds between the end of FLARE's process and its next start; doubled each time, up to a minute."""

WORTH_TELLING = (
    (re.compile(r"is disabled"), "the cloud has removed this device; its kit is of no use any more"),
    (re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"), "the cloud is of another fleet"),
)


def wait(folder: Path, edge: str) -> int:
    """Until a signal ends it."""
    stopped = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    flare, pause = folder / "flare", ENDED
    process: subprocess.Popen[bytes] | None = None
    log = _Tail(flare / "log.txt", flare / "output.txt")
    said: set[str] = set()
    next_start, began = 0.0, 0.0
    print(f"{edge}: waiting for work; Ctrl-C ends this", flush=True)
    try:
        while not stopped:
            now = time.monotonic()
            if process is None and now >= next_start:
                process, began = start_edge(flare, edge, {"SHEAF_EDGE": str(folder)}), now
            elif process is not None and process.poll() is not None:
                stop(process)
                process, pause = None, ENDED if now - began > 60 else min(60.0, 2 * pause)
                next_start = now + pause
            for line in log.lines():
                for pattern, meaning in WORTH_TELLING:
                    if pattern.search(line) and meaning not in said:
                        said.add(meaning)
                        print(f"{edge}: {meaning}", flush=True)
            time.sleep(0.5)
    finally:
        if process is not None:
            stop(process)
    return 0


class _Tail:
    """What is written to files from now on."""

    def __init__(self, *paths: Path) -> None:
        self._at = {path: path.stat().st_size if path.exists() else 0 for path in paths}

    def lines(self) -> list[str]:
        found: list[str] = []
        for path, at in self._at.items():
            size = path.stat().st_size if path.exists() else 0
            if size == at:
                continue
            with path.open("rb") as file:
                file.seek(at if size > at else 0)  # smaller: the log was begun anew
                found += file.read().decode(errors="replace").splitlines()
            self._at[path] = size
        return found


if __name__ == "__main__":
    sys.exit(wait(Path(sys.argv[1]), sys.argv[2]))
