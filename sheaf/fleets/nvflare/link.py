"""The link to a real fleet, over NVIDIA FLARE 2.9.

The run's process has FLARE's server start a job, which brings no code: its configuration names ``Relay`` for
the cloud and ``Edge`` for the devices, classes that both sides have and allow. The relay calls back to a
socket of this process, and passes messages. A job is disposable: when a device has come back that is not in
it, or its own process on the cloud was killed, the next call starts a fresh one.
"""

from __future__ import annotations

import contextlib
import io
import itertools
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
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from nvflare.fuel.flare_api.api_spec import ClientInfo
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from sheaf.core.errors import FleetError
from sheaf.core.wire_format import encode_header
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.kits import write_private
from sheaf.fleets.nvflare.processes import HEARTBEAT
from sheaf.fleets.nvflare.site_config import ADMIN, CONTROLLER, EDGE, EXECUTOR, RELAY
from sheaf.fleets.nvflare.socket_pipe import Pipe
from sheaf.fleets.remote.hashed_file import Bytes
from sheaf.fleets.remote.link import LinkDownError, LinkError

logger = logging.getLogger("sheaf")

FRESH = 3 * HEARTBEAT + 2
"""Seconds after which a device that gave no sign of life does not count as connected."""

STARTING = 60.0
"""Seconds that a job may take to start."""

RESTARTING = 20.0
"""Seconds that the server may take to start again."""

COMING_BACK = 15.0
"""Seconds in which devices are back after the server was."""

JOB_TRIES = 3

_T = TypeVar("_T")


class FlareLink:
    """Messages to the devices of one fleet.

    Args:
        folder: the fleet's, see ``provision``.
    """

    def __init__(self, folder: Path, session: Session, listener: Listener, secret: bytes) -> None:
        self._folder = folder
        self._session = session
        self._listener = listener
        self._secret = secret
        self._arrivals: dict[str, Future[tuple[Pipe, set[str]]]] = {}
        self.job = 0
        self._job: _Job | None = None
        self._job_id: str | None = None
        self._lost: dict[str, float] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def connected(self) -> dict[str, float]:
        """Device -> when it was last heard of, for those that give signs of life."""
        found: list[ClientInfo] = self._ask_server(lambda session: session.get_connected_client_list())
        now = time.time()
        return {
            client.name: client.last_connect_time
            for client in found
            if now - client.last_connect_time < FRESH
        }

    def close(self) -> None:
        """Ends the job and the session."""
        self.hang_up()
        with contextlib.suppress(Exception):
            self._session.close()  # an open session keeps the interpreter from ending

    def _ask_server(self, what: Callable[[Session], _T]) -> _T:
        """Asks FLARE's server, in a new session where the old one is over; it may be starting again.

        Raises:
            FleetError: it does not answer for ``RESTARTING`` seconds.
        """
        until = time.monotonic() + RESTARTING
        while True:
            try:
                return what(self._session)
            except Exception as error:  # FLARE raises many kinds
                failed = error
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
                raise FleetError(f"the fleet's cloud does not answer: {failed}") from failed

    def gather(self, sites: Sequence[str]) -> set[str]:
        """Sees to it that a job runs on those of ``sites`` that are connected; says which these are."""
        allowed = set(provision.read(self._folder).edges)  # read anew: devices come and go
        sites = [site for site in sites if site in allowed]
        if self._job is not None and not self._job.is_up:  # if the server was restarted, devices come back
            self._wait_for(self._job.sites & set(sites))
        for attempt in range(1, JOB_TRIES + 1):
            heard = self.connected()
            while self._may_be_back(sites, heard):
                time.sleep(0.2)
                heard = self.connected()
            back = {site for site in sites if heard.get(site, 0) > self._lost.get(site, 0)}
            if self._job is not None and self._job.is_up and back <= self._job.sites:
                return self._job.sites & set(sites)
            if not back:
                return set() if self._job is None or not self._job.is_up else self._job.sites & set(sites)
            try:
                self._start_job(sorted((set(heard) & allowed) - self._still_lost(heard)))
            except LinkError as error:
                logger.info("a job did not start (attempt %d): %s", attempt, error)
        raise FleetError(f"FLARE does not start a job; see {self._folder}/server/log.txt")

    def call(
        self, site: str, what: str, header: Mapping[str, Any], payload: Bytes, timeout: float
    ) -> tuple[dict[str, Any], Bytes]:
        """Sends one message through the job; see ``Link.call``."""
        if self._job is None:
            raise LinkDownError("no job runs")
        return self._job.call(site, what, encode_header(header), payload, timeout)

    def lose(self, site: str) -> None:
        """From now on the device is out, until a later sign of life of it."""
        self._lost[site] = time.time()
        if self._job is not None:
            self._job.sites.discard(site)

    def hang_up(self) -> None:
        """Ends the job."""
        if self._job is not None:
            self._job.close()
        self._job = None

    def _wait_for(self, sites: set[str]) -> None:
        until = time.monotonic() + COMING_BACK
        while sites - set(self.connected()) and time.monotonic() < until:
            time.sleep(0.5)

    def _may_be_back(self, sites: Sequence[str], heard: Mapping[str, float]) -> bool:
        """Whether a device was lost just now, so that its next sign of life may be on its way.

        Where only the process of its job died, the one that waits goes on giving them.
        """
        soon = time.time() - HEARTBEAT - 1
        return any(self._lost.get(site, 0) > max(soon, heard.get(site, 0)) for site in sites)

    def _still_lost(self, heard: Mapping[str, float]) -> set[str]:
        return {site for site, at in self._lost.items() if heard.get(site, 0) <= at}

    def _start_job(self, sites: Sequence[str]) -> None:
        """Starts a job on these sites and waits until its relay has called.

        Raises:
            LinkError: it did not start.
        """
        self.hang_up()
        if self._job_id is not None:
            with contextlib.suppress(Exception):  # it may be over, and FLARE says so in many ways
                self._session.abort_job(self._job_id)
        name = secrets.token_hex(8)
        arrival: Future[tuple[Pipe, set[str]]] = Future()
        self._arrivals = {name: arrival}
        bridge = {"address": self._listener.address, "secret": self._secret.hex(), "job": name}
        write_private(self._folder / "bridge.json", json.dumps(bridge))
        with tempfile.TemporaryDirectory() as scratch:
            _write_job(Path(scratch) / name, name, sites)
            try:
                self._job_id = str(self._session.submit_job(str(Path(scratch) / name)))
            except Exception as error:
                raise LinkError(f"{type(error).__name__}: {error}") from error
        logger.info("job %s is started on %s", self._job_id, ", ".join(sites))
        until = time.monotonic() + STARTING
        while not arrival.done():
            if time.monotonic() > until:
                raise LinkError(f"it did not start within {STARTING:g} s")
            with contextlib.suppress(FutureTimeoutError):
                arrival.result(timeout=1.0)
                break
            with contextlib.suppress(Exception):
                status = str(self._session.get_job_status(self._job_id))
                if status.startswith(("FINISHED", "FAILED")):
                    raise LinkError(f"it ended as {status}")
        self._job = _Job(*arrival.result())
        self.job += 1

    def _accept(self) -> None:
        """Takes the calls of relays; only the one of the newest job is kept."""
        while True:
            try:
                pipe = Pipe(self._listener.accept())
            except (AuthenticationError, EOFError, ConnectionError):
                continue
            except OSError:
                return  # closed
            try:
                about, _, _ = pipe.receive()
                arrival = self._arrivals.pop(about["job"])
            except (OSError, ValueError, KeyError):
                pipe.close()
                continue
            arrival.set_result((pipe, set(about["sites"])))


class _Job:
    """One running job, as the messages that go through its relay."""

    def __init__(self, pipe: Pipe, sites: set[str]) -> None:
        self.sites = sites
        self.is_up = True
        self._pipe = pipe
        self._waiting: dict[int, Future[tuple[dict[str, Any], Bytes]]] = {}
        self._numbers = itertools.count(1)
        threading.Thread(target=self._read, daemon=True).start()

    def call(
        self, site: str, what: str, header: bytes, payload: Bytes, timeout: float
    ) -> tuple[dict[str, Any], Bytes]:
        if site not in self.sites:
            raise LinkError("it is not in the running job")
        answer: Future[tuple[dict[str, Any], Bytes]] = Future()
        number = next(self._numbers)
        self._waiting[number] = answer
        try:
            about = {"number": number, "site": site, "what": what, "timeout": timeout}
            self._pipe.send(about, header, payload)
            if not self.is_up:
                raise LinkDownError("the job's process on the cloud is gone")
            return answer.result(timeout + 5)
        except (OSError, ValueError) as error:
            raise LinkDownError("the job's process on the cloud is gone") from error
        except FutureTimeoutError as error:
            raise LinkError(f"no answer in {timeout:g} s") from error
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        self.is_up = False
        self._pipe.close()

    def _read(self) -> None:
        try:
            while True:
                self._settle(*self._pipe.receive())
        except (OSError, ValueError, TypeError):
            self.is_up = False
            for waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(LinkDownError("the job's process on the cloud is gone"))

    def _settle(self, about: dict[str, Any], header: bytes, payload: Bytes) -> None:
        waiting = self._waiting.get(about["number"])
        if waiting is None:
            return  # it came too late
        if "error" in about:
            waiting.set_exception(LinkError(about["error"]))
            return
        try:
            answer = json.loads(header)
            if not isinstance(answer, dict):
                raise ValueError("no object")
        except ValueError:
            answer = {"error": "its answer is no JSON object"}
        waiting.set_result((answer, payload))


@contextmanager
def open_link(folder: Path) -> Iterator[FlareLink]:
    """The link to the fleet in ``folder``, for one run at a time.

    Raises:
        FleetError: the fleet's cloud does not run, or another run uses the fleet.
    """
    provision.read(folder)
    sockets = Path(tempfile.mkdtemp(prefix="sheaf-"))  # a socket's path must be short
    secret = secrets.token_bytes(32)
    try:
        with _locked(folder):
            session = new_session(folder)
            listener = Listener(str(sockets / "run"), "AF_UNIX", authkey=secret)
            link = FlareLink(folder, session, listener, secret)
            try:
                yield link
            finally:
                link.close()
                listener.close()
                (folder / "bridge.json").unlink(missing_ok=True)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def new_session(folder: Path) -> Session:
    """The administrator's session with the fleet's server.

    Raises:
        FleetError: the server does not answer.
    """
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says that it connects
            return new_secure_session(ADMIN, str(folder.resolve() / "admin"), timeout=15.0)
    except Exception as error:  # FLARE raises many kinds
        raise FleetError(
            f"the fleet's cloud does not answer; start it with: sheaf cloud start {folder}"
        ) from error


@contextmanager
def open_session(folder: Path) -> Iterator[Session]:
    """A session that ends with the block; see ``new_session``."""
    session = new_session(folder)
    try:
        yield session
    finally:
        with contextlib.suppress(Exception):
            session.close()


def last_heard(folder: Path) -> dict[str, float]:
    """Device -> seconds since it was last heard of, for all that were since the cloud started.

    Raises:
        FleetError: the server does not answer.
    """
    with open_session(folder) as session:
        now = time.time()
        return {client.name: now - client.last_connect_time for client in session.get_connected_client_list()}


def disable(folder: Path, edge: str) -> bool:
    """Tells the server that a device is out; False where it does not run."""
    try:
        with open_session(folder) as session:
            session.disable_client(edge)
    except FleetError:
        return False
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / "run.lock", timeout=0):
            yield
    except Timeout as error:
        raise FleetError(f"the fleet in {folder} is in use by another run") from error


def _write_job(folder: Path, name: str, sites: Sequence[str]) -> None:
    """A job of configuration alone."""
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    meta = {
        "name": name,
        "min_clients": 1,
        "resource_spec": {},
        "deploy_map": {"app": ["server", *sites]},
    }
    server = {
        "format_version": 2,
        "workflows": [{"id": "relay", "path": CONTROLLER, "args": {"server_obj_id": "cloud"}}],
        "components": [{"id": "cloud", "path": RELAY, "args": {}}],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {"client_obj_id": "edge"}}}],
        "components": [{"id": "edge", "path": EDGE, "args": {}}],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    (config / "config_fed_server.json").write_text(json.dumps(server))
    (config / "config_fed_client.json").write_text(json.dumps(client))
