"""Rehearse a deployment: run a whole fleet on one machine over the real transport.

The kits, mutual TLS, a process for the cloud and one for each device, and a data file for each device are
those of a deployment. Only the network is the machine's loopback interface.
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
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.nvflare import provision
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import Result


def rehearse(
    experiment: Experiment, out: Path, data: Path | None = None, observer: Observer | None = None
) -> Result:
    """Run an experiment on a temporary fleet.

    Args:
        experiment: its settings.
        out: the run's folder.
        data: the directory in which named datasets are looked for first.
        observer: receives the progress of the run.

    Raises:
        SheafError: any error that the caller can fix.
    """
    if not experiment.fleet.threads:  # the same number of threads gives the results of one process
        threads = replace(experiment.fleet, threads=torch.get_num_threads())
        experiment = replace(experiment, fleet=threads)
    with (
        # On a busy machine, a process of FLARE may still write a log while its folder is deleted.
        tempfile.TemporaryDirectory(prefix="sheaf-rehearsal-", ignore_cleanup_errors=True) as folder,
        stage(prepare(experiment, data), Path(folder)) as fleet,
    ):
        return deployed.run(experiment, fleet, data=data, out=out, wait=60.0, observer=observer)


@contextmanager
def stage(setup: ExperimentSetup, folder: Path, python: str = sys.executable) -> Iterator[Path]:
    """Start a cloud and its devices, yield the fleet's folder, and stop them.

    Args:
        setup: the experiment with its data.
        folder: for the files of the cloud and the devices.
        python: the devices' interpreter, for example one of another environment with sheaf.

    Raises:
        FleetError: a process ended inside the block.
    """
    fleet, processes = folder / "fleet", []
    provision.init(fleet, "localhost", free_port(), list(setup.edge_samples))
    try:
        processes.append(start_cloud(fleet))
        wait_for_cloud(fleet)
        for edge in write_edges(setup, folder):
            processes.append(start_edge(fleet, folder, edge, python))
        yield fleet
        for process in processes:
            if process.poll() is not None:
                raise FleetError(
                    f"a process of the rehearsal ended with exit code {process.returncode}: {process.args!r}"
                )
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)


def write_edges(setup: ExperimentSetup, folder: Path) -> list[str]:
    """Write each edge's data and settings for its process; return the names of the edges."""
    for edge, (train, held_out) in setup.edge_samples.items():
        place = folder / edge
        place.mkdir()
        positions = torch.cat([train.positions, held_out.positions]).sort().values
        own = replace(train, positions=positions)
        save_device_data(place / "data.safetensors", own, setup.dataset.test, setup.dataset.classes)
        settings = setup.experiment.fleet
        width = settings.widths.get(edge, 1.0)
        write_durably(
            place / "edge.toml",
            f'[edge]\nthreads = {settings.threads}\ndevice = "{settings.device}"\nwidth = {width}\n\n'
            "[share]\nmax_fraction = 1.0\nfiles = 'any'\nstatistics = true\n".encode(),
        )
    return list(setup.edge_samples)


def start_cloud(fleet: Path) -> subprocess.Popen[bytes]:
    """Start ``sheaf cloud start`` in a new process."""
    return _sheaf("cloud", "start", str(fleet), log=fleet / "start.log")


def wait_for_cloud(fleet: Path, seconds: float = 300.0) -> None:
    """Block until the fleet's cloud accepts connections.

    Raises:
        FleetError: it does not within ``seconds``.
    """
    port, deadline = provision.read(fleet).port, time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise FleetError(
                f"the cloud does not accept connections after {seconds:g} s; see {fleet}/server/output.txt"
            )
        time.sleep(0.2)


def start_edge(fleet: Path, folder: Path, edge: str, python: str = sys.executable) -> subprocess.Popen[bytes]:
    """Start ``sheaf edge join`` in a new process, with the files of ``write_edges``."""
    place = folder / edge
    return _sheaf(
        *("edge", "join", str(fleet / "kits" / f"{edge}.kit"), "--state", str(place / "state")),
        *("--data", str(place / "data.safetensors"), "--settings", str(place / "edge.toml")),
        log=place / "join.log",
        python=python,
    )


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _sheaf(*arguments: str, log: Path, python: str = sys.executable) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [python, "-c", "from sheaf.cli.main import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
