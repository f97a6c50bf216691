"""The link to a fleet over NVIDIA FLARE 2.9.

The run's process lets FLARE's server start a job without code: its configuration names ``Relay`` for the
cloud and ``Edge`` for the devices, classes that both sides have and allow. The relay connects to a socket of
the run's process and relays messages. A job is disposable: the next call starts a new one when a device has
returned that is not in it, or when the relay has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from nvflare.fuel.flare_api.api_spec import ClientInfo
from nvflare.fuel.flare_api.flare_api import Session

from sheaf.core.errors import FleetError
from sheaf.core.wire_format import encode_header
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.job import Job
from sheaf.fleets.nvflare.kits import write_private
from sheaf.fleets.nvflare.processes import HEARTBEAT
from sheaf.fleets.nvflare.session import new_session
from sheaf.fleets.nvflare.site_config import PROCESS_START_TIMEOUT, write_job
from sheaf.fleets.nvflare.socket_pipe import Pipe
from sheaf.fleets.remote.hashed_file import Bytes
from sheaf.fleets.remote.link import LinkDownError, LinkError

logger = logging.getLogger("sheaf")

HEARTBEAT_TIMEOUT = 3 * HEARTBEAT + 2
"""Time without a heartbeat after which a device is not connected, in seconds."""

JOB_START_TIMEOUT = PROCESS_START_TIMEOUT + 30.0
"""Time that a job may take to start, in seconds."""

SERVER_TIMEOUT = 20.0
"""Time that the server may take to restart, in seconds."""

RECONNECT_TIMEOUT = 15.0
"""Time that devices may take to reconnect to a restarted server, in seconds."""

JOB_ATTEMPTS = 3
"""Maximum number of attempts to start a job."""

_T = TypeVar("_T")
_Connection = tuple[Pipe, set[str]]  # a relay, and the devices of its job


class FlareLink:
    """A ``Link`` to the devices of one fleet.

    Args:
        folder: the fleet's folder, see ``provision.py``.
        session: with FLARE's server.
        listener: the socket that relays connect to.
        secret: authenticates relays.

    Attributes:
        job: number of jobs started.
    """

    def __init__(self, folder: Path, session: Session, listener: Listener, secret: bytes) -> None:
        self._folder = folder
        self._session = session
        self._listener = listener
        self._secret = secret
        self._expected: dict[str, Future[_Connection]] = {}  # name of the starting job -> its relay
        self.job = 0
        self._job: Job | None = None
        self._job_id: str | None = None
        self._lost: dict[str, float] = {}  # device -> time when it was found dead
        self._closed = False
        threading.Thread(target=self._accept, name="accept relays", daemon=True).start()

    def connected(self) -> dict[str, float]:
        """Return the time of the last heartbeat of each connected device."""
        clients: list[ClientInfo] = self._request(lambda session: session.get_connected_client_list())
        now = time.time()
        return {
            client.name: client.last_connect_time
            for client in clients
            if now - client.last_connect_time < HEARTBEAT_TIMEOUT
        }

    def delete_ended_jobs(self) -> None:
        """Delete the records of earlier jobs, which the server keeps until it starts again."""
        with contextlib.suppress(Exception):  # FLARE raises many types; the next run tries again
            for job in self._session.list_jobs():
                if str(job["status"]).startswith(("FINISHED", "FAILED")):
                    self._session.delete_job(job["job_id"])

    def close(self) -> None:
        """End the job, the session and the thread that accepts relays."""
        try:
            self._closed = True
            with contextlib.suppress(OSError):
                Client(self._listener.address).close()  # accept() returns; it does not when a listener closes
            self._end_job()
        finally:
            with contextlib.suppress(Exception):
                self._session.close()  # a thread of an open session would block the interpreter's end

    def _request(self, request: Callable[[Session], _T]) -> _T:
        """Return the server's reply to a request; after an error, repeat it in a new session.

        Raises:
            FleetError: no reply within ``SERVER_TIMEOUT`` seconds.
        """
        until = time.monotonic() + SERVER_TIMEOUT
        while True:
            try:
                return request(self._session)
            except Exception as error:  # FLARE raises many types
                failure = error
            with contextlib.suppress(Exception):
                self._session.close()
            while True:
                try:
                    self._session = new_session(self._folder)
                    break
                except FleetError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(1)
            if time.monotonic() > until:
                raise FleetError(f"the fleet's cloud does not answer: {failure}") from failure

    def gather(self, sites: Sequence[str]) -> set[str]:
        """Ensure that a job runs on those of ``sites`` that are connected, and return them."""
        members = set(provision.read(self._folder).edges)  # read again: devices may be added and removed
        sites = [site for site in sites if site in members]
        if self._job is not None and not self._job.is_up:  # after a restart of the server, devices reconnect
            self._wait_for(self._job.sites & set(sites))
        for attempt in range(1, JOB_ATTEMPTS + 1):
            heartbeats = self.connected()
            while self._may_return(sites, heartbeats):
                time.sleep(0.2)
                heartbeats = self.connected()
            alive = {site for site in sites if heartbeats.get(site, 0) > self._lost.get(site, 0)}
            if self._job is not None and self._job.is_up and alive <= self._job.sites:
                return self._job.sites & set(sites)
            if not alive:
                return set() if self._job is None or not self._job.is_up else self._job.sites & set(sites)
            dead = {site for site, lost_at in self._lost.items() if heartbeats.get(site, 0) <= lost_at}
            try:
                self._start_job(sorted((set(heartbeats) & members) - dead))
            except LinkError as error:
                logger.info("a job did not start (attempt %d): %s", attempt, error)
        raise FleetError(f"no job started in {JOB_ATTEMPTS} attempts; see {self._folder}/server/log.txt")

    def call(
        self, site: str, kind: str, header: Mapping[str, Any], payload: Bytes, timeout: float
    ) -> tuple[dict[str, Any], Bytes]:
        """Send one message through the job; see ``Link.call``."""
        if self._job is None:
            raise LinkDownError("no job is running")
        return self._job.call(site, kind, encode_header(header), payload, timeout)

    def lose(self, site: str) -> None:
        """Mark a device as dead, until its next heartbeat."""
        self._lost[site] = time.time()
        if self._job is not None:
            self._job.sites.discard(site)

    def _end_job(self) -> None:
        if self._job is not None:
            self._job.close()
        self._job = None

    def _wait_for(self, sites: set[str]) -> None:
        until = time.monotonic() + RECONNECT_TIMEOUT
        while sites - set(self.connected()) and time.monotonic() < until:
            time.sleep(0.5)

    def _may_return(self, sites: Sequence[str], heartbeats: Mapping[str, float]) -> bool:
        """Return whether a device died less than a heartbeat ago, and has sent none since.

        If only its job's process died, its main process continues to send heartbeats.
        """
        recent = time.time() - HEARTBEAT - 1
        return any(self._lost.get(site, 0) > max(recent, heartbeats.get(site, 0)) for site in sites)

    def _start_job(self, sites: Sequence[str]) -> None:
        """Start a job on these sites and block until its relay has connected.

        Raises:
            LinkError: it did not start.
        """
        self._end_job()
        if self._job_id is not None:
            with contextlib.suppress(Exception):  # it may have ended; FLARE raises many types
                self._session.abort_job(self._job_id)
        name = secrets.token_hex(8)
        relay: Future[_Connection] = Future()
        self._expected = {name: relay}
        bridge = {"address": self._listener.address, "secret": self._secret.hex(), "job": name}
        write_private(self._folder / "bridge.json", json.dumps(bridge))
        with tempfile.TemporaryDirectory() as scratch:
            write_job(Path(scratch) / name, name, sites)
            try:
                self._job_id = str(self._session.submit_job(str(Path(scratch) / name)))
            except Exception as error:
                raise LinkError(f"{type(error).__name__}: {error}") from error
        logger.info("submitted job %s for %s", self._job_id, ", ".join(sites))
        until = time.monotonic() + JOB_START_TIMEOUT
        while not relay.done():
            if time.monotonic() > until:
                raise LinkError(f"it did not start within {JOB_START_TIMEOUT:g} s")
            with contextlib.suppress(FutureTimeoutError):
                relay.result(timeout=1.0)
                break
            status = ""
            with contextlib.suppress(Exception):
                status = str(self._session.get_job_status(self._job_id))
            if status.startswith(("FINISHED", "FAILED")):
                raise LinkError(f"it ended as {status}")
        self._job = Job(*relay.result())
        self.job += 1

    def _accept(self) -> None:
        """Accept connections of relays, and close those of earlier jobs."""
        while not self._closed:
            try:
                pipe = Pipe(self._listener.accept())
            except (AuthenticationError, EOFError, ConnectionError):
                continue
            except OSError:
                return  # the listener is closed
            try:
                envelope, _, _ = pipe.receive()
                relay = self._expected.pop(envelope["job"])
            except (OSError, ValueError, KeyError):
                pipe.close()
                continue
            relay.set_result((pipe, set(envelope["sites"])))


@contextmanager
def open_link(folder: Path) -> Iterator[FlareLink]:
    """Yield the link to the fleet in ``folder``; only one run can have it.

    Raises:
        FleetError: the fleet's cloud does not answer, or another run uses the fleet.
    """
    provision.read(folder)
    sockets = Path(tempfile.mkdtemp(prefix="sheaf-"))  # the path of a Unix socket must be short
    secret = secrets.token_bytes(32)
    try:
        with _locked(folder), Listener(str(sockets / "run"), "AF_UNIX", authkey=secret) as listener:
            link = FlareLink(folder, new_session(folder), listener, secret)
            try:
                link.delete_ended_jobs()
                yield link
            finally:
                link.close()
                (folder / "bridge.json").unlink(missing_ok=True)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / "run.lock", timeout=0):
            yield
    except Timeout as error:
        raise FleetError(f"another run uses the fleet in {folder}; wait for its end") from error
