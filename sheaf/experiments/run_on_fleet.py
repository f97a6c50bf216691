"""Run an experiment on a real fleet: the devices have the data and report their class counts.

The run's folder is that of ``run_folder.py``; ``pool/`` has the samples sent by devices. The cloud reads the
experiment's dataset for the test samples, the classes and the normalisation. Its training samples and the
experiment's partition are not used.
"""

from __future__ import annotations

import logging
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sheaf.core import objects
from sheaf.core.errors import RunFolderError
from sheaf.core.fleet import Fleet
from sheaf.core.optional_imports import installed_version
from sheaf.core.progress_bar import bar
from sheaf.core.settings import plain
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.data.settings import DataSettings
from sheaf.experiments import run as runs
from sheaf.experiments import run_folder
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.execution import Engine
from sheaf.experiments.named_share import load_for_fleet
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.experiments.start_from import StartModels
from sheaf.experiments.survey import Survey, survey
from sheaf.fleets.nvflare.processes import check_installed
from sheaf.fleets.remote.fleet import RemoteFleet
from sheaf.fleets.remote.messages import DataForm, Setup
from sheaf.fleets.remote.run_record import RunRecord
from sheaf.fleets.remote.sample_pool import Pool
from sheaf.runtime.observer import NullObserver, Observer, Observers
from sheaf.runtime.result import Result
from sheaf.training.statistics import blank

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
    edges: Sequence[str] = (),
    start: Path | None = None,
    observer: Observer | None = None,
) -> Result:
    """Run an experiment on the fleet in the folder ``fleet``.

    Devices that cannot take part are left out before anything is trained, if the quorum holds without them.

    Args:
        experiment: the name of a shipped experiment, a TOML file, or an ``Experiment``.
        fleet: the fleet's folder in the cloud.
        changes: ``key.sub=value`` strings that change the experiment, as with ``--set``.
        data: the directory in which named datasets are looked for first.
        out: the run's folder; by default ``runs/NAME-TIME``.
        wait: seconds to wait for devices at the start; the run then begins if the quorum is connected.
        edges: patterns of the devices to ask, see ``FleetFile.choose``; all by default.
        start: the folder of a finished run, with whose models the cloud and the devices start.
        observer: receives the progress of the run.

    Raises:
        DevicesError: too few devices can take part.
        SheafError: any other error that the caller can fix.
    """
    resolved, command, folder = runs.resolve(load_for_fleet(experiment, changes), (), data, out)
    models = None if start is None else StartModels.of_run(start)
    resolved = resolved if models is None else models.adapt(resolved)
    with _surveyed(resolved, fleet, data, folder, wait, edges) as (link, found, run_id):
        found.check_quorum(resolved.fleet.quorum)
        command |= {"fleet": str(fleet.resolve()), "run": run_id}
        command["start"] = None if start is None else str(start.resolve())
        command["counts"] = found.counts(len(next(iter(found.infos.values())).counts))
        command["widths"] = found.widths()
        command["left_out"] = {edge: "; ".join(reasons) for edge, reasons in found.misfits.items()}
        setup = _with_roster(resolved, data, command, models)
        record = _record(fleet, folder, resolved)
        with record.kept():
            observer = Observers([observer or NullObserver(), record])
            engine = _engine(link, command, found.absent)
            result = runs.start(setup, folder, command, observer, engine, models)
            record.finished(result)
            return result


def survey_fleet(
    experiment: Experiment,
    fleet: Path,
    *,
    data: Path | None = None,
    wait: float = 30.0,
    edges: Sequence[str] = (),
) -> Survey:
    """Return which devices could take part in a run, without training; arguments as for ``run``.

    Raises:
        SheafError: any error that the caller can fix.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        _surveyed(experiment, fleet, data, Path(scratch), wait, edges) as (_, found, _),
    ):
        return found


@contextmanager
def _surveyed(
    experiment: Experiment,
    fleet: Path,
    data: Path | None,
    folder: Path,
    wait: float,
    patterns: Sequence[str],
) -> Iterator[tuple[FlareLink, Survey, str]]:
    """Yield the link to a fleet, the survey of its devices, and the identifier of the run."""
    check_installed()
    from sheaf.fleets.nvflare import provision
    from sheaf.fleets.nvflare.link import open_link

    edges = provision.read(fleet).choose(patterns)
    setup = prepare(experiment, data, {edge: [] for edge in edges})
    run_id = uuid.uuid4().hex

    def prepare_with(counts: dict[str, list[int]], widths: dict[str, float]) -> ExperimentSetup:
        return _with_roster(experiment, data, {"counts": counts, "widths": widths})

    with open_link(fleet) as link:
        _wait_for(link, edges, wait)
        remote = _remote(setup, link, run_id, folder, None, edges)
        yield link, survey(remote, prepare_with), run_id


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
        models = StartModels.kept(folder) if command.get("start") else None
        return _with_roster(load_experiment(folder / "experiment.toml"), root, command, models)

    if (folder / "result.json").exists():
        return runs.go_on(folder, prepare_again, observer or NullObserver())
    fleet = Path(command["fleet"])
    record = _record(fleet, folder, load_experiment(folder / "experiment.toml"))
    with open_link(fleet) as link, record.kept():
        observer = Observers([observer or NullObserver(), record])
        _wait_for(link, command["counts"], wait)
        result = runs.go_on(folder, prepare_again, observer, _engine(link, command, {}))
        record.finished(result)
        return result


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


def _with_roster(
    experiment: Experiment, data: Path | None, command: Mapping[str, Any], models: StartModels | None = None
) -> ExperimentSetup:
    """Return the setup with the class counts and widths that the devices reported, and with start models."""
    counts = command["counts"]
    widths = experiment.fleet.widths | command["widths"]
    fleet = replace(experiment.fleet, widths={edge: widths[edge] for edge in widths if edge in counts})
    setup = prepare(replace(experiment, fleet=fleet), data, counts)
    setup = setup if models is None else models.begin(setup)
    return replace(setup, left_out=command.get("left_out", {}))


def _engine(link: FlareLink, command: dict[str, Any], absent: Mapping[str, str]) -> Engine:
    """Return a function that creates the fleet of a run.

    It logs the devices that are absent at the start, because a method may send them no task.
    """

    def make(setup: ExperimentSetup, folder: Path, observer: Observer) -> Fleet:
        for site, why in absent.items():
            logger.info("%s is absent at the start: %s", site, why)
            observer.absent(site, f"absent at the start: {why}")
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
        version=installed_version(),
        form=DataForm(
            label=data.label,
            input=data.input,
            size=data.size,
            channels=data.channels,
            bits=dataset.bits,
            rate=data.rate,
            seconds=data.seconds,
            test_share=data.test_share if data.test_share < 1 else DataSettings.test_share,
        ),
    )
    whole = Blob.of(setup.theta).size

    def largest(task: Task) -> int:
        model = 0 if task.kind == "summarize" else whole + whole // 8  # with an additional row, "other"
        if task.statistic is None:
            return model
        statistic = blank(setup.network, task.cut, task.statistic)
        return model + sum(value.nbytes for value in statistic.values())

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
