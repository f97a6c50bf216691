"""The administrator's session with FLARE's server, by FLARE's public API."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvflare.fuel.flare_api.flare_api import Session

from sheaf.core.errors import FleetError
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.site_config import ADMIN

LOGIN_TIMEOUT = 15.0
"""Time in seconds."""


def new_session(folder: Path) -> Session:
    """Return a new session with the server of the fleet in ``folder``; the caller closes it.

    Raises:
        FleetError: the server does not answer.
    """
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)
    try:
        fleet = provision.read(folder)
        # FLARE tries a closed port again until its timeout.
        socket.create_connection((fleet.host, fleet.port), LOGIN_TIMEOUT).close()
        session = Session(ADMIN, str(folder.resolve() / "admin"))
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                session.try_connect(LOGIN_TIMEOUT)
        except BaseException:  # FLARE's new_secure_session leaves a session open after a KeyboardInterrupt
            with contextlib.suppress(Exception):
                _close_unopened(session)
            raise
        return session
    except Exception as error:  # FLARE raises many types
        raise FleetError(
            f"the fleet's cloud does not answer; start it with: sheaf cloud start {folder}"
        ) from error


def _close_unopened(session: Session) -> None:
    """Close a session whose login has failed: its threads would block the interpreter's end."""
    session.api.close()
    cell = session.api.cell
    if cell is not None:
        # A cell that is interrupted while it starts does not know that it runs, and ignores its own stop.
        cell.core_cell.communicator.stop()


@contextmanager
def open_session(folder: Path) -> Iterator[Session]:
    """Yield a session and close it afterwards; see ``new_session``."""
    session = new_session(folder)
    try:
        yield session
    finally:
        with contextlib.suppress(Exception):
            session.close()


def seconds_since_heartbeat(folder: Path) -> dict[str, float]:
    """Return the time since the last heartbeat of each device that has connected since the server started.

    Raises:
        FleetError: the server does not answer.
    """
    with open_session(folder) as session:
        now = time.time()
        return {client.name: now - client.last_connect_time for client in session.get_connected_client_list()}


def disable_device(folder: Path, edge: str) -> bool:
    """Make a running server reject a device; return whether the server is running."""
    try:
        with open_session(folder) as session:
            session.disable_client(edge)
    except FleetError:
        return False
    return True
