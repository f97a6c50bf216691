"""Run an experiment on a real fleet: the devices have the data and report their class counts.

The run's folder is that of ``run_folder.py``; ``pool/`` has the samples sent by devices. The cloud reads the
experiment's dataset for the test samples, the classes and the normalisation. Its training samples and the
experiment's partition are not used.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sheaf.core import objects
from sheaf.core.errors import RunFolderError
from sheaf.core.progress_bar import bar
from sheaf.core.settings import plain
from sheaf.core.task import Absence, Fleet, Task
from sheaf.core.tensor_file import Blob
from sheaf.experiments import run as runs
from sheaf.experiments import run_folder
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.named_share import load_for_fleet
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.nvflare.processes import check_installed
from sheaf.fleets.remote.fleet import RemoteFleet
from sheaf.fleets.remote.messages import DataForm, DeviceInfo, Setup
from sheaf.fleets.remote.run_record import RunRecord
from sheaf.fleets.remote.sample_pool import Pool
from sheaf.runtime.calls import check_quorum
from sheaf.runtime.observer import NullObserver, Observer, Observers
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
    """Run an experiment on the fleet in the folder ``fleet``.

    Args:
        experiment: the name of a shipped experiment, a TOML file, or an ``Experiment``.
        fleet: the fleet's folder in the cloud.
        changes: ``key.sub=value`` strings that change the experiment, as with ``--set``.
        data: the directory in which named datasets are looked for first.
        out: the run's folder; by default ``runs/NAME-TIME``.
        wait: seconds to wait for devices at the start; the run then begins if the quorum is connected.
        observer: receives the progress of the run.

    Raises:
        SheafError: any error that the caller can fix.
    """
    resolved, command, folder = runs.resolve(load_for_fleet(experiment, changes), (), data, out)
    check_installed()
    from sheaf.fleets.nvflare import provision
    from sheaf.fleets.nvflare.link import open_link

    edges = provision.read(fleet).edges
    setup = prepare(resolved, data, {edge: [] for edge in edges})
    command |= {"fleet": str(fleet.resolve()), "run": uuid.uuid4().hex}
    record = _record(fleet, folder, resolved)
    with open_link(fleet) as link, record.kept():
        observer = Observers([observer or NullObserver(), record])
        _wait_for(link, edges, wait)
        replies = _remote(setup, link, command["run"], folder, None, edges).devices()
        absent = [answer for answer in replies.values() if isinstance(answer, Absence)]
        present = {edge: answer for edge, answer in replies.items() if isinstance(answer, DeviceInfo)}
        check_quorum(len(present), len(edges), resolved.fleet.quorum, "are there", absent)
        command["counts"], command["widths"] = _roster(edges, present, len(setup.dataset.classes))
        setup = _with_roster(resolved, data, command)
        return runs.start(setup, folder, command, observer, _engine(link, command, absent))


def resume(
    folder: Path, *, data: Path | None = None, wait: float = 30.0, observer: Observer | None = None
) -> Result:
    """Resume the run in ``folder``; updates that had arrived are read from the journal.

    Args:
        folder: the run's folder.
        data: the directory in which named datasets are looked for first; by default as in ``run``.
        wait: seconds to wait for devices, which reconnect after a restart of the cloud.
        observer: receives the progress of the run.

    Raises:
        RunFolderError: the folder has no run on a fleet, or a damaged one.
    """
    command = run_folder.read_command(folder)
    if "counts" not in command:
        raise RunFolderError(f"{folder} holds no run on a fleet; go on with: sheaf run --resume {folder}")
    check_installed()
    from sheaf.fleets.nvflare.link import open_link

    def prepare_again() -> ExperimentSetup:
        root = data or run_folder.data_root(folder)
        return _with_roster(load_experiment(folder / "experiment.toml"), root, command)

    if (folder / "result.json").exists():
        return runs.go_on(folder, prepare_again, observer or NullObserver())
    fleet = Path(command["fleet"])
    record = _record(fleet, folder, load_experiment(folder / "experiment.toml"))
    with open_link(fleet) as link, record.kept():
        observer = Observers([observer or NullObserver(), record])
        _wait_for(link, command["counts"], wait)
        return runs.go_on(folder, prepare_again, observer, _engine(link, command))


def _record(fleet: Path, folder: Path, experiment: Experiment) -> RunRecord:
    names = plain(experiment.method)["name"], experiment.data.name, experiment.model.name
    return RunRecord(fleet, folder, "{} on {} with {}".format(*map(objects.readable, names)))


def _wait_for(link: FlareLink, edges: Collection[str], seconds: float) -> None:
    """Block until every device has been connected once, at most for ``seconds``."""
    deadline, missing = time.monotonic() + seconds, set(edges)
    with bar("waiting for devices", len(missing)) as advance:
        while missing and time.monotonic() < deadline:
            connected = missing & set(link.connected())
            missing -= connected
            advance(len(connected))
            if missing:
                time.sleep(0.5)


def _roster(
    edges: Iterable[str], present: dict[str, DeviceInfo], classes: int
) -> tuple[dict[str, list[int]], dict[str, float]]:
    """Return the class counts of each device (zeros for an absent one), and the widths below 1."""
    counts = {edge: present[edge].counts if edge in present else [0] * classes for edge in edges}
    return counts, {edge: info.width for edge, info in present.items() if info.width < 1}


def _with_roster(experiment: Experiment, data: Path | None, command: dict[str, Any]) -> ExperimentSetup:
    """Return the setup with the class counts and the widths that the devices reported."""
    fleet = replace(experiment.fleet, widths=experiment.fleet.widths | command["widths"])
    return prepare(replace(experiment, fleet=fleet), data, command["counts"])


def _engine(link: FlareLink, command: dict[str, Any], absent: Iterable[Absence] = ()) -> runs.Engine:
    """Return a function that creates the fleet of a run.

    It logs the devices that are absent at the start, because a method may send them no task.
    """

    def make(setup: ExperimentSetup, folder: Path, observer: Observer) -> Fleet:
        for absence in absent:
            logger.info("%s is absent at the start: %s", absence.site, absence.why)
            observer.absent(absence.site, f"absent at the start: {absence.why}")
        return _remote(setup, link, command["run"], folder, observer, tuple(command["counts"]))

    return make


def _remote(
    setup: ExperimentSetup,
    link: FlareLink,
    run: str,
    folder: Path,
    observer: Observer | None,
    edges: tuple[str, ...],
) -> RemoteFleet:
    experiment, dataset = setup.experiment, setup.dataset
    data = experiment.data
    message = Setup(
        run=run,
        seed=experiment.seed,
        model=experiment.model.name,
        options=experiment.model.options,
        classes=list(dataset.classes),
        shape=dataset.shape,
        mean=list(dataset.mean),
        std=list(dataset.std),
        held_out=data.held_out,
        name=folder.resolve().name,
        deliver=experiment.fleet.deliver,
        form=DataForm(
            label=data.label,
            input=data.input,
            size=data.size,
            channels=data.channels,
            bits=dataset.bits,
            rate=data.rate,
            seconds=data.seconds,
            test_share=data.test_share,
        ),
    )
    whole = Blob.of(setup.theta).size

    def largest(task: Task) -> int:
        if task.statistic is None:
            return whole + whole // 8  # a sub-model may have an additional row, "other"
        statistic = blank(setup.network.of(task.cut), task.statistic.kind)
        return whole + whole // 8 + sum(value.nbytes for value in statistic.values())

    pool = Pool(folder / "pool")
    return RemoteFleet(
        edges,
        link,
        message,
        largest,
        (dataset.shape, dataset.train.inputs.dtype),
        experiment.fleet.deadline,
        folder / "incoming",
        None if observer is None else observer.step,
        pool.add,
    )
