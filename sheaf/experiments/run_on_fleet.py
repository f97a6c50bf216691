"""One run on a real fleet: the devices have the data, and the cloud learns how many examples of which class.

The run's folder is that of ``runs.py``, with the shared samples beside it (``pool.py``). The data that the
experiment names is read in the cloud for its test part, its classes and its normalisation; its training part
is left alone, and so is the experiment's partition.
"""

from __future__ import annotations

import importlib.util
import logging
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sheaf.core.errors import FleetError, RunFolderError
from sheaf.core.progress_bar import bar
from sheaf.core.task import Absence, Fleet, Task
from sheaf.core.tensor_file import Blob
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.setup import Prepared, prepare
from sheaf.fleets.remote.fleet import RemoteFleet
from sheaf.fleets.remote.messages import DataForm, DeviceInfo, Setup
from sheaf.fleets.remote.sample_pool import Pool
from sheaf.runtime.calls import check_quorum
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import Result
from sheaf.training.merge_statistics import blank

if TYPE_CHECKING:
    from sheaf.fleets.nvflare.link import FlareLink

logger = logging.getLogger("sheaf")


def run(
    experiment: str | Path | Experiment,
    fleet: Path,
    *,
    changes: Iterable[str] = (),
    data: Path | None = None,
    out: Path | None = None,
    wait: float = 30.0,
    observer: Observer | None = None,
) -> Result:
    """Runs an experiment on the fleet in the folder ``fleet``.

    Args:
        wait: seconds that devices are waited for at the start; with the quorum the run then begins.

    Raises:
        SheafError: anything that the caller can mend, in one line.
    """
    name = experiment if isinstance(experiment, str | Path) else "run"
    resolved = experiment if isinstance(experiment, Experiment) else load_experiment(experiment, changes)
    check_installed()
    from sheaf.fleets.nvflare import provision
    from sheaf.fleets.nvflare.link import open_link

    edges = provision.read(fleet).edges
    prepared = prepare(resolved, data, {edge: [] for edge in edges})
    command: dict[str, Any] = {"data": None if data is None else str(data.resolve())}
    command |= {"fleet": str(fleet.resolve()), "run": uuid.uuid4().hex}
    folder = out or runs.new_folder(name)
    with open_link(fleet) as link:
        _wait_for(link, edges, wait)
        told = _remote(prepared, link, command["run"], folder, None, edges).devices()
        absent = [answer for answer in told.values() if isinstance(answer, Absence)]
        there = {edge: answer for edge, answer in told.items() if isinstance(answer, DeviceInfo)}
        check_quorum(len(there), len(edges), resolved.fleet.quorum, "are there", absent)
        command["counts"], command["widths"] = _roster(edges, there, len(prepared.dataset.classes))
        prepared = _with_roster(resolved, data, command)
        return runs.start(
            prepared, folder, command, observer or NullObserver(), _engine(link, command, absent)
        )


def resume(
    folder: Path, *, data: Path | None = None, wait: float = 30.0, observer: Observer | None = None
) -> Result:
    """Goes on with the run in ``folder``; updates that had arrived are not asked for again.

    Args:
        wait: seconds that devices are waited for at first: where the cloud was restarted, they come back.

    Raises:
        RunFolderError: there is no run on a fleet in this folder, or it is damaged.
    """
    command = runs.read_command(folder)
    if "counts" not in command:
        raise RunFolderError(f"{folder} holds no run on a fleet; go on with: sheaf run --resume {folder}")
    check_installed()
    from sheaf.fleets.nvflare.link import open_link

    def prepare_again() -> Prepared:
        root = data or (Path(command["data"]) if command["data"] else None)
        return _with_roster(load_experiment(folder / "experiment.toml"), root, command)

    if (folder / "result.json").exists():
        return runs.go_on(folder, prepare_again, observer or NullObserver())
    with open_link(Path(command["fleet"])) as link:
        _wait_for(link, command["counts"], wait)
        return runs.go_on(folder, prepare_again, observer or NullObserver(), _engine(link, command))


def check_installed() -> None:
    """Raises where the engine is not installed.

    Raises:
        FleetError: says how to install it.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise FleetError("a real fleet needs NVIDIA FLARE; install it with: pip install 'sheaf[fleet]'")


def _wait_for(link: FlareLink, edges: Collection[str], seconds: float) -> None:
    """Until every device was seen connected, or the time is over."""
    until, missing = time.monotonic() + seconds, set(edges)
    with bar("waiting for devices", len(missing)) as advance:
        while missing and time.monotonic() < until:
            there = missing & set(link.connected())
            missing -= there
            advance(len(there))
            if missing:
                time.sleep(0.5)


def _roster(
    edges: Iterable[str], there: dict[str, DeviceInfo], classes: int
) -> tuple[dict[str, list[int]], dict[str, float]]:
    """Counts of each device, none of one that is not there, and widths of those that carry less than all."""
    counts = {edge: there[edge].counts if edge in there else [0] * classes for edge in edges}
    return counts, {edge: present.width for edge, present in there.items() if present.width < 1}


def _with_roster(experiment: Experiment, data: Path | None, command: dict[str, Any]) -> Prepared:
    """What is prepared once it is known who is there; what a device can carry, it says itself."""
    fleet = replace(experiment.fleet, widths=experiment.fleet.widths | command["widths"])
    return prepare(replace(experiment, fleet=fleet), data, command["counts"])


def _engine(link: FlareLink, command: dict[str, Any], absent: Iterable[Absence] = ()) -> runs.Engine:
    """Makes the fleet of a run, and tells who is absent at its start: a method may ask them for nothing."""

    def make(prepared: Prepared, folder: Path, observer: Observer) -> Fleet:
        for absence in absent:
            logger.info("%s is not there at the start: %s", absence.site, absence.why)
            observer.absent(absence.site, f"not there at the start: {absence.why}")
        return _remote(prepared, link, command["run"], folder, observer, tuple(command["counts"]))

    return make


def _remote(
    prepared: Prepared,
    link: FlareLink,
    run: str,
    folder: Path,
    observer: Observer | None,
    edges: tuple[str, ...],
) -> RemoteFleet:
    experiment, dataset = prepared.experiment, prepared.dataset
    data = experiment.data
    setup = Setup(
        run=run,
        seed=experiment.seed,
        model=experiment.model.name,
        options=experiment.model.options,
        classes=list(dataset.classes),
        shape=dataset.shape,
        mean=list(dataset.mean),
        std=list(dataset.std),
        held_out=data.held_out,
        form=DataForm(
            size=data.size,
            channels=data.channels,
            rate=data.rate,
            seconds=data.seconds,
            test_share=data.test_share,
        ),
    )
    whole = Blob.of(prepared.theta).size

    def largest(task: Task) -> int:
        if task.statistic is None:
            return whole + whole // 8  # a part may have a row more than the whole: "none of mine"
        beside = blank(prepared.network.of(task.cut), task.statistic.kind)
        return whole + whole // 8 + sum(value.nbytes for value in beside.values())

    pool = Pool(folder / "pool")
    return RemoteFleet(
        edges,
        link,
        setup,
        largest,
        (dataset.shape, dataset.train.inputs.dtype),
        experiment.fleet.deadline,
        folder / "incoming",
        None if observer is None else observer.step,
        pool.add,
    )
