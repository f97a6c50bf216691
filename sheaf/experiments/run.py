"""Run an experiment in a folder, resume it, or estimate its cost."""

from __future__ import annotations

import gc
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sheaf.core import objects
from sheaf.core.cut import Cut
from sheaf.core.errors import FleetError, RunFolderError, SheafError
from sheaf.core.optional_imports import installed_version
from sheaf.core.settings import plain
from sheaf.core.task import Fleet, Task
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.experiments import processes, run_folder
from sheaf.experiments.clock import timeline_of, with_clock
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.dry_run import edges_and_cloud
from sheaf.experiments.memory_check import check_memory
from sheaf.experiments.provenance import provenance
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.experiments.start_from import StartModels
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.fleets.processes.cloud_training import CloudProcesses
from sheaf.fleets.processes.edge_training import EdgeProcesses
from sheaf.fleets.processes.group import Processes
from sheaf.models.checkpoints import load_state
from sheaf.runtime.calls import Calls
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal, answered
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import CutsRecord, Log, PartRecord, Refusal, Result, Row
from sheaf.runtime.timeline import BudgetSpent
from sheaf.runtime.worker import Train, Worker

logger = logging.getLogger("sheaf")

STOPPED = "at the budget"
"""The stage at which the edges' models are measured when a run has spent ``fleet.stop_at``."""

BASELINE_STAGES = ("alone", "central")
"""The stages at which ``local`` and ``central`` measure their final models."""

Engine = Callable[[ExperimentSetup, Path, Observer], Fleet]
"""Creates the fleet of a run in its folder; the observer receives the training steps."""


def in_process(setup: ExperimentSetup, folder: Path, observer: Observer) -> Fleet:
    """Return a fleet of workers in this process."""
    return _local_fleet(setup, folder, observer, None)


def _local_fleet(
    setup: ExperimentSetup, folder: Path, observer: Observer, others: Processes | None
) -> LocalFleet:
    of_edges = None
    if others is not None and others.sizes.fleet > 1:
        of_edges = EdgeProcesses(others, setup.dataset, observer.note)
    return LocalFleet(setup.edges(folder / "sites"), observer.step, setup.experiment.fleet.together, of_edges)


def run(
    experiment: str | Path | Experiment = "default",
    *,
    changes: Iterable[str] = (),
    data: Path | None = None,
    out: Path | None = None,
    observer: Observer | None = None,
) -> Result:
    """Run an experiment in a new folder and return the result, which is also written there.

    Args:
        experiment: the name of a shipped experiment, a TOML file, or an ``Experiment``.
        changes: ``key.sub=value`` strings that change it, as with ``--set``.
        data: the directory in which named datasets are looked for first.
        out: the run's folder; by default ``runs/METHOD-DATA-MODEL-TIME``.
        observer: receives the progress of the run.

    Raises:
        SheafError: any error that the caller can fix.
    """
    resolved, command, folder = resolve(experiment, changes, data, out)
    return start(prepare(resolved, data), folder, command, observer or NullObserver())


def resolve(
    experiment: str | Path | Experiment, changes: Iterable[str], data: Path | None, out: Path | None
) -> tuple[Experiment, dict[str, Any], Path]:
    """Return the experiment, the arguments that resuming needs, and the folder of a new run."""
    resolved = load_experiment(experiment, changes)
    command = {"data": None if data is None else str(data.resolve())}
    return resolved, command, out or run_folder.new_folder(resolved)


def start(
    setup: ExperimentSetup,
    folder: Path,
    command: dict[str, Any],
    observer: Observer,
    engine: Engine = in_process,
    models: StartModels | None = None,
) -> Result:
    """Run an experiment in a folder that is new or empty.

    If the run fails before any site has answered, its folder is removed: resuming would fail again. After a
    ``FleetError`` it stays, because the fleet may come back.

    Args:
        setup: the experiment.
        folder: the run's folder.
        command: the arguments that resuming needs beside the experiment.
        observer: receives the progress of the run.
        engine: creates the fleet.
        models: those that ``setup`` starts from; kept in the folder.

    Raises:
        SheafError: any error that the caller can fix.
    """
    processes.serve_launched(setup, processes.sizes_of(setup.experiment, engine is not in_process))
    check_memory(setup)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(
            f"{folder} is not empty; name another folder, or go on with: sheaf run --resume {folder}"
        )
    topmost_new = folder
    while not topmost_new.parent.exists():
        topmost_new = topmost_new.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with run_folder.lock(folder):
            if models is not None:
                models.keep(folder)
            run_folder.write_command(folder, command, setup.experiment.toml())
            return _execute(setup, folder, observer, engine)
    except FleetError:
        raise
    except SheafError:
        if not answered(folder / "journal"):
            shutil.rmtree(topmost_new)
        raise


def resume(folder: Path, *, data: Path | None = None, observer: Observer | None = None) -> Result:
    """Resume the run in ``folder``; the result is that of an uninterrupted run.

    Args:
        folder: the run's folder.
        data: the directory in which named datasets are looked for first; by default as in ``run``.
        observer: receives the progress of the run.

    Raises:
        RunFolderError: the folder has no run, a run of another experiment, or a damaged one.
    """

    def prepare_again() -> ExperimentSetup:
        return prepare(load_experiment(folder / "experiment.toml"), data or run_folder.data_root(folder))

    return go_on(folder, prepare_again, observer or NullObserver())


def go_on(
    folder: Path,
    prepare_again: Callable[[], ExperimentSetup],
    observer: Observer,
    engine: Engine = in_process,
) -> Result:
    """Resume the run in ``folder``, or return the result of a finished run.

    Raises:
        RunFolderError: the folder has no run, a run of another experiment, or a damaged one.
    """
    if not (folder / "experiment.toml").exists():
        raise RunFolderError(f"{folder} holds no run (no experiment.toml); start one with: sheaf run")
    if processes.launched_beside():
        if not (folder / "result.json").exists():
            setup = prepare_again()
            processes.serve_launched(setup, processes.sizes_of(setup.experiment, engine is not in_process))
        raise SystemExit(0)
    with run_folder.lock(folder):
        if (folder / "result.json").exists():
            run_folder.tidy(folder)
            return Result.read(folder)
        return _execute(prepare_again(), folder, observer, engine)


def _execute(
    setup: ExperimentSetup,
    folder: Path,
    observer: Observer,
    engine: Engine,
    others: Processes | None = None,
) -> Result:
    """Run an experiment in its folder.

    Args:
        others: the run's other processes, if they run already.
    """
    experiment = setup.experiment
    method = plain(experiment.method)["name"]
    configure_torch(setup)
    ledger = setup.ledger()
    timeline = timeline_of(setup, ledger, measured=engine is not in_process)
    log = Log(observer.row, timeline)
    sizes = processes.sizes_of(experiment, engine is not in_process)
    with (
        _freeze_gc(),
        run_folder.log_to_file(folder),
        nullcontext(others) if others else processes.start(setup, sizes) as others,
        Journal(folder / "journal", _identity(setup)) as journal,
        observer,
    ):
        logger.info("%s on %s with %d edges", method, setup.dataset.name, len(setup.edge_samples))
        for note in setup.notes:
            logger.info(note)
            observer.note(note)
        calls = Calls(
            experiment.seed, journal, ledger, observer, log.trained, timeline, experiment.fleet.stop_at
        )
        for site, why in setup.left_out.items():
            logger.info("%s takes no part: %s", site, why)
            calls.refused.append(Refusal(call=0, site=site, why=why))
            observer.absent(site, f"takes no part: {why}")
        if engine is in_process:
            fleet: Fleet = _local_fleet(setup, folder, observer, others)
        else:
            fleet = engine(setup, folder, observer)
        train: Train | None = None
        if others is not None and others.sizes.cloud > 1:
            train = CloudProcesses(others, folder)
        worker = setup.cloud(folder / "sites", train)
        of_cloud: Fleet = LocalFleet([worker], observer.step)
        if timeline is not None and setup.devices is not None and isinstance(fleet, LocalFleet):
            fleet = with_clock(setup, setup.devices, timeline, fleet)
            of_cloud = with_clock(setup, setup.devices, timeline, LocalFleet([worker], observer.step))
        edges, cloud = edges_and_cloud(setup, calls, fleet, worker, of_cloud)
        start = setup.theta
        try:
            theta = experiment.method.run(start, edges, cloud, log)
        except BudgetSpent:
            logger.info("call %d: fleet.stop_at is spent, the run stops", calls.count)
            theta = edges.theta or start
            if edges.theta is not None:
                log(STOPPED, edges.evaluate(), log.rows[-1].round if log.rows else 1)
        weights = run_folder.save_models(setup, folder, edges, theta, log.measured)
        # A real device that was absent at the start has no counts in the set-up.
        split = {
            site: own if any(own) else list(calls.counts.get(site, own)) for site, own in setup.split.items()
        }
        on_cloud = [] if engine is in_process else _measure_on_cloud(split, folder, weights, worker, edges)
        if experiment.baselines and engine is not in_process:
            observer.note("baselines are not trained on a fleet: each device would train as much again")
        elif experiment.baselines:
            for row in _run_baselines(setup, start, folder, observer, others):
                log.add(row)
    result = Result(
        method=method,
        classes=list(setup.dataset.classes),
        split=split,
        rows=log.rows,
        whole=setup.whole,
        cost=ledger.sites,
        refused=calls.refused,
        curves=log.curves,
        cuts=_cuts(setup, edges),
        replacements=calls.replacements,
        weights=weights,
        on_cloud=on_cloud,
        time=None if timeline is None else timeline.record(log.spent),
        provenance=provenance(
            plain(experiment),
            experiment.seed,
            setup.fingerprints,
            setup.device,
            setup.commits,
        )
        | _objects(setup),
    )
    result.write(folder)
    run_folder.tidy(folder)
    return result


def _measure_on_cloud(
    split: Mapping[str, list[int]], folder: Path, weights: dict[str, str], worker: Worker, edges: Edges
) -> list[Row]:
    """Measure the edges' final models on the cloud's test data, which the edges do not have."""
    measured = []
    for site, counts in split.items():
        if site in weights:
            model = Blob.at(folder / weights[site])
            task = Task("evaluate", 1, 0, model, cut=edges.cut_of(site))
            measured.append(replace(worker.do(task), site=site, counts=tuple(counts)))
    log = Log()
    log("final", measured)
    return log.rows


def _run_baselines(
    setup: ExperimentSetup, start: Params, folder: Path, observer: Observer, others: Processes | None
) -> Iterator[Row]:
    """Run each baseline in ``folder/baselines/NAME`` and yield its final models' measurements as references.

    The results are those of ``sheaf run`` with that method, bit for bit.
    """
    for name in setup.experiment.baselines:
        experiment = replace(setup.experiment.with_method(name), baselines=())
        own = folder / "baselines" / name
        if experiment.method == setup.experiment.method:
            continue
        if (own / "result.json").exists():
            result = Result.read(own)
        else:
            load_state(setup.network.model, start)
            own.mkdir(parents=True, exist_ok=True)
            run_folder.write_command(own, run_folder.read_command(folder), experiment.toml())
            result = _execute(
                replace(setup, experiment=experiment, notes=()),
                own,
                _Prefixed(observer, name),
                in_process,
                others,
            )
        for row in result.rows:
            if row.stage in BASELINE_STAGES:
                yield replace(row, reference=True)


class _Prefixed(NullObserver):
    """Forwards the progress of a baseline under site names such as ``local/edge-1``."""

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer = observer
        self._name = name

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self._observer.began(kind, [f"{self._name}/{site}" for site in sites])

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        self._observer.step(f"{self._name}/{site}", done, steps, loss, examples)

    def answered(self, site: str) -> None:
        self._observer.answered(f"{self._name}/{site}")


@contextmanager
def _freeze_gc() -> Iterator[None]:
    """Exclude all existing objects from garbage collection inside the block.

    They are mostly imported libraries. Each traversal of them takes 0.2 s, in which no thread can train. If
    the caller has frozen objects already, nothing changes.
    """
    unfrozen = gc.get_freeze_count() == 0
    if unfrozen:
        gc.freeze()
    try:
        yield
    finally:
        if unfrozen:
            gc.unfreeze()


def configure_torch(setup: ExperimentSetup) -> None:
    """Set the number of threads, and make cuDNN deterministic."""
    if setup.experiment.fleet.threads:
        torch.set_num_threads(setup.experiment.fleet.threads)
    if setup.device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def _objects(setup: ExperimentSetup) -> dict[str, Any]:
    """Return the part of the provenance on objects that cannot be rebuilt from their names."""
    experiment = setup.experiment
    names = experiment.data.name, experiment.model.name, plain(experiment.method)["name"]
    records = objects.records(names)
    return {"objects": records} if records else {}


def _cuts(setup: ExperimentSetup, edges: Edges) -> CutsRecord | None:
    """Return the final cuts of the edges, each once; None if all edges hold the whole model."""
    holders: dict[Cut, list[str]] = {}
    for site in setup.edge_samples:
        if (cut := edges.cut_of(site)) is not None:
            holders.setdefault(cut, []).append(site)
    if not holders:
        return None
    return CutsRecord(
        groups={group.name: group.width for group in setup.network.structure.groups},
        parts=[PartRecord(sites=sites, **cut.header()) for cut, sites in holders.items()],
    )


def _identity(setup: ExperimentSetup) -> dict[str, str]:
    devices = {} if setup.devices is None else {"profile": setup.devices.digest}
    return devices | {
        "experiment": hashlib.sha256(setup.experiment.toml().encode()).hexdigest(),
        "data": " ".join(setup.fingerprints.values()),
        "sheaf": installed_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }
