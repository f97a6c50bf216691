"""The cloud's side of a fleet, kept running: FLARE's server, until it is stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from sheaf.core.errors import FleetError
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.processes import start_cloud, stop


def serve(folder: Path, say: Callable[[str], None]) -> None:
    """Until a signal ends it.

    Raises:
        FleetError: there is no fleet, it is served already, or the server ended by itself.
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
            process = start_cloud(workspace, {"SHEAF_FLEET": str(folder.resolve())})
            try:
                say(f"listening for {', '.join(fleet.edges)} at {fleet.host}:{fleet.port}; Ctrl-C ends this")
                while not stopped:
                    if (code := process.poll()) is not None:
                        raise FleetError(
                            f"FLARE's server ended by itself (code {code}); see {workspace}/output.txt"
                        )
                    time.sleep(0.2)
            finally:
                stop(process)
    except Timeout as error:
        raise FleetError(f"the fleet in {folder} is being served by another process") from error
