"""A rehearsal: a whole fleet on one machine, over the real engine.

Everything is as it will be: kits, mutual TLS, a process for the cloud, one for each device, each reading its
own part of the data from its own file. Only the network is the machine's own.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from sheaf.core.atomic_io import write_durably
from sheaf.core.errors import FleetError
from sheaf.data.device_data import save_device_data
from sheaf.experiments import run_on_fleet as deployed
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import Prepared, prepare
from sheaf.fleets.nvflare import provision
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import Result


def rehearse(
    experiment: Experiment, out: Path, data: Path | None = None, observer: Observer | None = None
) -> Result:
    """Runs an experiment on a fleet that is made for it and taken down afterwards.

    Raises:
        SheafError: anything that the caller can mend, in one line.
    """
    if not experiment.fleet.threads:  # so that an edge computes as it would in one process
        threads = replace(experiment.fleet, threads=torch.get_num_threads())
        experiment = replace(experiment, fleet=threads)
    with (
        tempfile.TemporaryDirectory(prefix="sheaf-rehearsal-") as folder,
        stage(prepare(experiment, data), Path(folder)) as fleet,
    ):
        return deployed.run(experiment, fleet, data=data, out=out, wait=60.0, observer=observer)


@contextmanager
def stage(prepared: Prepared, folder: Path) -> Iterator[Path]:
    """A cloud and its devices, running; yields the fleet's folder.

    Raises:
        FleetError: a process ended at once.
    """
    fleet, processes = folder / "fleet", []
    provision.init(fleet, "localhost", free_port(), list(prepared.parts))
    try:
        processes.append(start_cloud(fleet))
        wait_for_cloud(fleet)
        for edge in write_edges(prepared, folder):
            processes.append(start_edge(fleet, folder, edge))
        yield fleet
        for process in processes:
            if process.poll() is not None:
                raise FleetError(f"a process of the rehearsal ended by itself: {process.args!r}")
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)


def write_edges(prepared: Prepared, folder: Path) -> list[str]:
    """Writes each edge's data and own file where its process will read them; returns their names."""
    for edge, (train, held_out) in prepared.parts.items():
        place = folder / edge
        place.mkdir()
        positions = torch.cat([train.positions, held_out.positions]).sort().values
        own = replace(train, positions=positions)
        save_device_data(place / "data.safetensors", own, prepared.dataset.test, prepared.dataset.classes)
        settings = prepared.experiment.fleet
        width = settings.widths.get(edge, 1.0)
        write_durably(
            place / "edge.toml",
            f'[edge]\nthreads = {settings.threads}\ndevice = "{settings.device}"\nwidth = {width}\n\n'
            "[share]\nmax_fraction = 1.0\n".encode(),
        )
    return list(prepared.parts)


def start_cloud(fleet: Path) -> subprocess.Popen[bytes]:
    """``sheaf cloud start``, in a process of its own."""
    return _sheaf("cloud", "start", str(fleet), log=fleet / "start.log")


def wait_for_cloud(fleet: Path, seconds: float = 60.0) -> None:
    """Until the fleet's cloud listens.

    Raises:
        FleetError: it does not come to that.
    """
    port, until = provision.read(fleet).port, time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > until:
            raise FleetError(f"the fleet's cloud does not listen; see {fleet}/server/output.txt")
        time.sleep(0.2)


def start_edge(fleet: Path, folder: Path, edge: str) -> subprocess.Popen[bytes]:
    """``sheaf edge join``, in a process of its own, with what ``write_edges`` wrote."""
    place = folder / edge
    return _sheaf(
        *("edge", "join", str(fleet / "kits" / f"{edge}.kit"), "--state", str(place / "state")),
        *("--data", str(place / "data.safetensors"), "--settings", str(place / "edge.toml")),
        log=place / "join.log",
    )


def free_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _sheaf(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", "from sheaf.cli.main import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
