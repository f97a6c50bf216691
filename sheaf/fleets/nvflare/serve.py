"""Serving a fleet: runs FLARE's server until a signal arrives."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from sheaf.core.errors import FleetError
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.housekeeping import Housekeeping
from sheaf.fleets.nvflare.processes import FLEET, start_cloud, stop


def serve(folder: Path, say: Callable[[str], None]) -> None:
    """Serve the fleet in ``folder`` until SIGINT or SIGTERM.

    Args:
        say: prints a line.

    Raises:
        FleetError: the folder has no fleet, another process serves it, or the server has ended by itself.
    """
    fleet = provision.read(folder)
    stopped = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    try:
        with FileLock(folder / "serve.lock", timeout=0):
            workspace = provision.write_workspace(folder, fleet)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, on_signal)
            process = start_cloud(workspace, {FLEET: str(folder.resolve())})
            keeper = Housekeeping(workspace)
            try:
                say(f"listening at {fleet.host}:{fleet.port} for {', '.join(fleet.edges)}; Ctrl-C stops")
                while not stopped:
                    if (code := process.poll()) is not None:
                        raise FleetError(f"FLARE's server ended with code {code}; see {workspace}/output.txt")
                    keeper.tick()
                    time.sleep(0.2)
            finally:
                stop(process)
    except Timeout as error:
        raise FleetError(f"another process serves the fleet in {folder}; stop it first") from error
