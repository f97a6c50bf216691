"""The processes of a run, as a torch.distributed process group: rank 0 executes the run, the others compute.

Rank 0 starts the others on its machine, or ``torchrun`` started all of them, on one machine or several.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed as dist

from sheaf.core.errors import FleetError, SettingError, first_line
from sheaf.fleets.processes.messages import Message, receive, send

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # some builds of torch lack it

START_SECONDS = 600.0
"""The time within which all processes must have read their data."""

STEP = timedelta(minutes=30)
"""The timeout of a collective operation of a training step."""

IDLE = timedelta(days=1000)
"""The timeout of a message: a process receives its next one when the run needs it."""

END_SECONDS = 5.0
"""The time in which a process exits at the end of a run, before it is killed."""


class ProcessLost(FleetError):  # noqa: N818  # the name of an event, as KeyboardInterrupt
    """A process of the run has ended, or its connection is closed."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of processes, this one included.

    Attributes:
        fleet: that train edges.
        cloud: that train the cloud's model together.
    """

    fleet: int = 1
    cloud: int = 1

    @property
    def all(self) -> int:
        """The number of processes of the run."""
        return max(self.fleet, self.cloud)


@dataclass(frozen=True)
class Launched:
    """This process as one of those that torchrun started.

    Attributes:
        rank: its number, from 0.
        size: the number of processes.
        local: its number on this machine.
    """

    rank: int
    size: int
    local: int


def launched() -> Launched | None:
    """Return the place of this process among those that torchrun started; None without torchrun."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    except (KeyError, ValueError):
        return None
    return Launched(rank, size, int(os.environ.get("LOCAL_RANK", rank)))


def check_sizes(sizes: Sizes) -> None:
    """Check the numbers of processes against torchrun's.

    Raises:
        SettingError: torchrun started another number.
    """
    own = launched()
    if own is not None and own.size != sizes.all:
        raise SettingError(
            f"torchrun started {own.size} processes, but fleet.processes = {sizes.fleet} and cloud.processes "
            f"= {sizes.cloud}; set one of them, or both, to {own.size}"
        )


class Processes:
    """The other processes of a run, from the process that executes it: rank 0.

    Args:
        sizes: numbers of processes.
        threads: the number of threads of torch in each process when it trains a large network.
        device: on which they compute.
        children: the processes that were started here, by rank.

    Attributes:
        step_group: the processes that train the cloud's model together.
    """

    def __init__(
        self, sizes: Sizes, threads: int, device: torch.device, children: dict[int, subprocess.Popen[bytes]]
    ) -> None:
        self.sizes = sizes
        self.threads = threads
        self.lost: set[int] = set()
        self._children = children
        self.step_group = _step_group(sizes.cloud, device)

    def send(self, rank: int, message: Message) -> None:
        """Send a message.

        Raises:
            ProcessLost: the process has ended.
        """
        with self._losing(rank):
            send(rank, message)

    def receive(self, rank: int) -> Message:
        """Return the next message of a process.

        Raises:
            ProcessLost: the process has ended.
        """
        with self._losing(rank):
            return receive(rank)

    def kill(self) -> None:
        """Kill the processes that were started here; calls that block on them raise ProcessLost."""
        for child in self._children.values():
            child.kill()

    def end(self) -> None:
        """End the processes."""
        for rank in set(range(1, self.sizes.all)) - self.lost:
            with suppress(ProcessLost):
                self.send(rank, Message("end"))
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_SECONDS)

    @contextmanager
    def _losing(self, rank: int) -> Iterator[None]:
        if rank in self.lost:
            raise ProcessLost(f"process {rank} of the run has ended")
        try:
            yield
        except RuntimeError as error:
            self.lost.add(rank)
            raise ProcessLost(f"process {rank} of the run has ended") from error


@contextmanager
def start(
    sizes: Sizes,
    threads: int,
    device: torch.device,
    command: Sequence[str],
    request: Mapping[str, Any],
    identity: str,
) -> Iterator[Processes | None]:
    """Start the other processes of the run, or join those of torchrun; end them with the context.

    Args:
        sizes: numbers of processes.
        threads: the number of threads of each.
        device: on which they compute.
        command: starts a process that reads ``request`` and calls ``serve``.
        request: the standard input of the command, as JSON.
        identity: of experiment and data, which all processes must have.

    Yields:
        The processes; None if this is the only one.

    Raises:
        FleetError: a process does not start, or has other data.
    """
    if sizes.all == 1:
        yield None
        return
    if dist.is_initialized():
        raise FleetError(
            "this process is in a torch.distributed group already; call destroy_process_group, or set "
            "fleet.processes = 1 and cloud.processes = 1"
        )
    store, children, hook = _store(sizes.all), {}, sys.excepthook
    if store.add("runs", 1) > 1:
        raise FleetError("torchrun executes one run; start each run of a comparison by its own torchrun")
    try:
        if launched() is None:
            for rank in range(1, sizes.all):
                children[rank] = _child(rank, sizes.all, store.port, command, json.dumps(request).encode())
        _await(store, sizes.all, children, identity)
        _join(store, 0, sizes.all)
        processes = Processes(sizes, threads, device, children)
        yield processes
        processes.end()
    finally:
        for child in children.values():
            child.kill()
            child.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.excepthook = hook  # init_process_group replaces it


def serve(
    sizes: Sizes,
    device: torch.device,
    identity: str,
    execute: Callable[[Message, dist.ProcessGroup | None], None],
) -> None:
    """Join the run as one of its other processes, and execute its messages until it ends.

    Args:
        sizes: numbers of processes.
        device: on which this process computes.
        identity: of its experiment and data.
        execute: executes a message; gets the group of the cloud's processes, if this one is among them.
    """
    store, rank = _own_store()
    store.set(_key(rank), f"ready {identity}")
    _join(store, rank, sizes.all)
    group = _step_group(sizes.cloud, device)
    try:
        while (message := receive(0)).kind != "end":
            execute(message, group)
    finally:
        dist.destroy_process_group()


def report_failure(error: BaseException) -> None:
    """Let the run end with this error, which keeps this process from serving it."""
    store, rank = _own_store()
    store.set(_key(rank), f"failed {first_line(error)}")


def _own_store() -> tuple[TCPStore, int]:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    own = launched()
    assert own is not None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, wait_for_workers=False), own.rank


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use this number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_gpu(device: torch.device) -> None:
    """Let this process compute on the GPU with its number on the machine, if ``device`` is a GPU."""
    own = launched()
    if own is not None and device.type == "cuda":
        torch.cuda.set_device(own.local % torch.cuda.device_count())


def _store(size: int) -> TCPStore:
    """Return the store over which the processes meet."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if launched() is not None:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return TCPStore(address, port, is_master=not agents, wait_for_workers=False)
    return TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)


def _child(
    rank: int, size: int, port: int, command: Sequence[str], request: bytes
) -> subprocess.Popen[bytes]:
    environment = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    child = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
        start_new_session=True,  # Ctrl-C interrupts rank 0, which ends the others
    )
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(request)
        child.stdin.close()
    return child


def _key(rank: int) -> str:
    return f"sheaf/{rank}"


def _await(store: TCPStore, size: int, children: dict[int, subprocess.Popen[bytes]], identity: str) -> None:
    """Block until all other processes are prepared."""
    until = time.monotonic() + START_SECONDS
    for rank in range(1, size):
        while not store.check([_key(rank)]):
            if rank in children and (code := children[rank].poll()) is not None:
                raise FleetError(f"process {rank} of the run ended with code {code} before it had started")
            if time.monotonic() > until:
                raise FleetError(
                    f"process {rank} of the run did not start within {START_SECONDS:.0f} s; start all "
                    "with the same command, or set fleet.processes and cloud.processes to 1"
                )
            time.sleep(0.02)
        state, _, rest = store.get(_key(rank)).decode().partition(" ")
        if state == "failed":
            raise FleetError(f"process {rank} of the run cannot start: {rest}")
        if rest != identity:
            raise FleetError(
                f"process {rank} of the run has another experiment or other data than process 0; give all "
                "processes the same command and the same data"
            )


def _join(store: TCPStore, rank: int, size: int) -> None:
    if launched() is None or os.environ.get("MASTER_ADDR") == "127.0.0.1":
        # A machine's name may stand for an address that does not reach it.
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=IDLE)


def _step_group(size: int, device: torch.device) -> dist.ProcessGroup | None:
    """Return the first ``size`` processes as a group: over NCCL if each has a GPU, otherwise over Gloo.

    None if there is one, or if this process is not among them.
    """
    if size == 1:
        return None
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    nccl = device.type == "cuda" and dist.is_nccl_available() and torch.cuda.device_count() >= here
    group = dist.new_group(list(range(size)), STEP, "nccl" if nccl else "gloo")
    return group if isinstance(group, dist.ProcessGroup) else None
