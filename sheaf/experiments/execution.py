"""The execution of an experiment in its folder: journal, sites, the method, the result."""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sheaf.core import objects
from sheaf.core.cut import Cut
from sheaf.core.fleet import Fleet
from sheaf.core.optional_imports import installed_version
from sheaf.core.settings import plain
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.experiments import processes, run_folder
from sheaf.experiments.baselines import run_baselines
from sheaf.experiments.clock import timeline_of, with_clock
from sheaf.experiments.dry_run import edges_and_cloud
from sheaf.experiments.provenance import provenance
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.fleets.processes.cloud_training import CloudProcesses
from sheaf.fleets.processes.edge_training import EdgeProcesses
from sheaf.fleets.processes.group import Processes
from sheaf.runtime.calls import Calls
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal
from sheaf.runtime.log import Log
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import CutsRecord, PartRecord, Refusal, Result, Row
from sheaf.runtime.timeline import BudgetSpent
from sheaf.runtime.worker import Train, Worker

logger = logging.getLogger("sheaf")

STOPPED = "at the budget"
"""The stage at which the edges' models are measured when a run has spent ``fleet.stop_at``."""

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


def execute(
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

            def execute_baseline(own: ExperimentSetup, place: Path, observer: Observer) -> Result:
                return execute(own, place, observer, in_process, others)

            for row in run_baselines(setup, start, folder, observer, execute_baseline):
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
