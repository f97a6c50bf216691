"""The other processes of a run: how one is started with the run's experiment, and what it executes.

Rank 0 executes the run. It starts the others with this file as their program, or ``torchrun`` starts all with
the command of the run, of which the others serve rank 0 until the run ends.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist

from sheaf.core import objects, toml
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe
from sheaf.core.settings import parse
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.processes import group
from sheaf.fleets.processes.cloud_training import CloudTrainer
from sheaf.fleets.processes.edge_training import EdgeTrainer
from sheaf.fleets.processes.group import Processes, Sizes
from sheaf.fleets.processes.messages import Message
from sheaf.training.distributed import why_not_distributed
from sheaf.training.preparation import Preparation


def sizes_of(experiment: Experiment, fleet: bool = False) -> Sizes:
    """Return the numbers of processes of a run; on a real fleet, devices train the edges."""
    return Sizes(1 if fleet else experiment.fleet.processes, experiment.cloud.processes)


def check_processes(setup: ExperimentSetup, sizes: Sizes) -> None:
    """Check that several processes give the results of one.

    Raises:
        SettingError: they do not, or torchrun started another number.
    """
    group.check_sizes(sizes)
    if sizes.all == 1:
        return
    if not dist.is_available():
        raise SettingError(
            "fleet.processes and cloud.processes above 1 need torch.distributed, which this build of torch "
            "lacks; set them to 1"
        )
    key = "fleet.processes" if sizes.fleet > 1 else "cloud.processes"
    experiment = setup.experiment
    if objects.records([experiment.data.name, experiment.model.name]) and group.launched() is None:
        raise SettingError(
            f"{key} = {sizes.all}: another process cannot build data or models that are objects of this one; "
            f"name a folder and 'package.module:function', run the program by torchrun, or set {key} = 1"
        )
    if setup.device.type == "mps":
        raise SettingError(f"{key} = {sizes.all}: torch.distributed has no MPS; set {key} = 1")
    if sizes.cloud > 1:
        recipes = [each for each in vars(experiment.method).values() if isinstance(each, Recipe)]
        network = setup.network
        if why := why_not_distributed(network.model, network.in_shape, recipes, setup.device):
            raise SettingError(f"cloud.processes = {sizes.cloud}: {why}; set cloud.processes = 1")


@contextmanager
def start(setup: ExperimentSetup, sizes: Sizes) -> Iterator[Processes | None]:
    """Start the other processes of a run, and end them with the context; yield None for one process.

    Raises:
        SettingError: several processes would not give the results of one.
        FleetError: a process does not start.
    """
    check_processes(setup, sizes)
    request = {
        "experiment": setup.experiment.toml(),
        "data": None if setup.root is None else str(setup.root.resolve()),
        "fleet": sizes.fleet,
        "cloud": sizes.cloud,
        "path": sys.path,  # a user's modules
    }
    threads = setup.experiment.fleet.threads or max(1, torch.get_num_threads() // sizes.all)
    with group.start(sizes, threads, setup.device, [__file__], request, _identity(setup)) as processes:
        yield processes


def serve(setup: ExperimentSetup, sizes: Sizes) -> None:
    """Train edges, and take part in training the cloud's model, until the run ends."""
    group.choose_gpu(setup.device)
    prepare_inputs = Preparation(setup.dataset.mean, setup.dataset.std, setup.device)
    edges = EdgeTrainer(setup.network, setup.dataset, prepare_inputs)
    cloud = CloudTrainer(setup.network.model, prepare_inputs)

    def execute(message: Message, step_group: dist.ProcessGroup | None) -> None:
        if message.kind == "train edges":
            edges.execute(message)
        elif message.kind == "train cloud" and step_group is not None:
            cloud.execute(message, step_group)
        else:
            raise ValueError(f"unknown message {message.kind!r}")

    group.serve(sizes, setup.device, _identity(setup), execute)


def launched_beside() -> bool:
    """Return whether torchrun started this process with a rank above 0, to serve the one that runs."""
    own = group.launched()
    return own is not None and own.rank > 0


def serve_launched(setup: ExperimentSetup, sizes: Sizes) -> None:
    """Serve the run and exit if torchrun started this process with a rank above 0; otherwise return.

    Raises:
        SystemExit: the run has ended.
    """
    if launched_beside():
        check_processes(setup, sizes)
        serve(setup, sizes)
        raise SystemExit(0)


def _identity(setup: ExperimentSetup) -> str:
    digest = hashlib.sha256(setup.experiment.toml().encode())
    digest.update(setup.dataset.fingerprint.encode())
    return digest.hexdigest()


def main() -> None:
    """Serve the run of the request on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = json.load(sys.stdin.buffer)
    sys.path[:] = request["path"]
    try:
        experiment = parse(Experiment, toml.loads(request["experiment"]))
        setup = prepare(experiment, None if request["data"] is None else Path(request["data"]))
    except Exception as error:
        group.report_failure(error)
        raise
    serve(setup, Sizes(request["fleet"], request["cloud"]))


if __name__ == "__main__":
    main()
