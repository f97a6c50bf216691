"""One run: from an experiment to a folder with its result."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from sheaf.core.atomic_io import sync, write_durably
from sheaf.core.cut import Cut
from sheaf.core.errors import FleetError, RunFolderError, SheafError
from sheaf.core.settings import plain
from sheaf.core.task import Fleet, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD, Params
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.provenance import provenance
from sheaf.experiments.setup import Prepared, listening, prepare
from sheaf.fleets.local.dry_run import DryFleet
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.models.card import Card
from sheaf.models.checkpoints import save_weights
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.costs import Ledger
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal, answered
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import CutsRecord, Log, PartRecord, Result
from sheaf.runtime.worker import Worker

logger = logging.getLogger("sheaf")

WRITERS = 2
"""How many models are in memory to be written: one is encoded while the disk syncs another."""

REMOVERS = 16
"""How many files are removed side by side."""

Engine = Callable[[Prepared, Path, Observer], Fleet]
"""Makes the fleet of a run in its folder, where the observer hears of training steps."""


def in_process(prepared: Prepared, folder: Path, observer: Observer) -> Fleet:
    """Every edge is a worker in this process."""
    return LocalFleet(prepared.edges(folder / "sites"), observer.step, prepared.experiment.fleet.together)


def run(
    experiment: str | Path | Experiment = "ecavg-digits",
    *,
    changes: Iterable[str] = (),
    data: Path | None = None,
    out: Path | None = None,
    observer: Observer | None = None,
) -> Result:
    """Runs an experiment in a folder of its own and returns the result, which also lies there.

    Args:
        experiment: a shipped name, a TOML file, or an ``Experiment``.
        changes: ``key.sub=value`` texts applied to it, as ``--set`` does.
        data: where named datasets are looked for first.
        out: the run's folder; by default one under ``runs/`` named after experiment and time.
        observer: told how the run goes.

    Raises:
        SheafError: anything that the caller can mend, in one line.
    """
    name = experiment if isinstance(experiment, str | Path) else "run"
    resolved = experiment if isinstance(experiment, Experiment) else load_experiment(experiment, changes)
    command = {"data": None if data is None else str(data.resolve())}
    return start(prepare(resolved, data), out or new_folder(name), command, observer or NullObserver())


def start(
    prepared: Prepared, folder: Path, command: dict[str, Any], observer: Observer, engine: Engine = in_process
) -> Result:
    """Runs what is prepared in a folder that is new or empty.

    Args:
        command: what going on with the run needs to know beyond the experiment; kept as ``command.json``.

    Raises:
        SheafError: anything that the caller can mend, in one line.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(
            f"{folder} is not empty; name another folder, or go on with: sheaf run --resume {folder}"
        )
    made = folder
    while not made.parent.exists():
        made = made.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            write_durably(folder / "command.json", json.dumps(command).encode())
            write_durably(folder / "experiment.toml", prepared.experiment.toml().encode())
            return _execute(prepared, folder, observer, engine)
    except FleetError:
        raise  # the fleet may be back in a minute, and the run then goes on
    except SheafError:
        if not answered(folder / "journal"):
            shutil.rmtree(made)  # nothing was spent yet, and the same mistake would be made on resuming
        raise


def new_folder(name: str | Path) -> Path:
    """Where a run goes if nobody says where."""
    return Path("runs") / f"{Path(name).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def resume(folder: Path, *, data: Path | None = None, observer: Observer | None = None) -> Result:
    """Goes on with the run in ``folder``; its result is that of a run which was never stopped.

    Raises:
        RunFolderError: there is no run, it belongs to another experiment, or it is damaged.
    """

    def prepare_again() -> Prepared:
        root = data
        if root is None and (told := read_command(folder).get("data")):
            root = Path(told)
        return prepare(load_experiment(folder / "experiment.toml"), root)

    return go_on(folder, prepare_again, observer or NullObserver())


def go_on(
    folder: Path, prepare_again: Callable[[], Prepared], observer: Observer, engine: Engine = in_process
) -> Result:
    """Goes on with the run in ``folder``, or returns its result if it is finished.

    Raises:
        RunFolderError: there is no run, it belongs to another experiment, or it is damaged.
    """
    if not (folder / "experiment.toml").exists():
        raise RunFolderError(f"{folder} holds no run (no experiment.toml)")
    with _locked(folder):
        if (folder / "result.json").exists():
            _tidy(folder)
            return Result.read(folder)
        return _execute(prepare_again(), folder, observer, engine)


def read_command(folder: Path) -> dict[str, Any]:
    """Read ``command.json``: the options with which the run in ``folder`` was started.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    path = folder / "command.json"
    try:
        command = json.loads(path.read_text())
        command["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is missing or damaged; say where the data is with --data") from error
    return dict(command)


def rehearse(prepared: Prepared) -> Ledger:
    """What a run would cost, from its method run on a fleet that does not train."""
    ledger = prepared.ledger()
    with tempfile.TemporaryDirectory() as scratch, Journal(Path(scratch) / "journal", {}) as journal:
        edges, cloud = prepared.edges(Path(scratch)), prepared.cloud(Path(scratch))
        calls = Calls(prepared.experiment.seed, journal, ledger)
        sites = _sites(prepared, calls, DryFleet(edges), cloud, DryFleet([cloud]))
        prepared.experiment.method.run(prepared.theta, *sites, Log())
    return ledger


def _execute(prepared: Prepared, folder: Path, observer: Observer, engine: Engine) -> Result:
    experiment = prepared.experiment
    method = plain(experiment.method)["name"]
    _set_up_torch(prepared)
    ledger = prepared.ledger()
    log = Log(observer.row)
    with (
        _passed_over(),
        _logging_to(folder / "log.txt"),
        Journal(folder / "journal", _identity(prepared)) as journal,
        observer,
    ):
        logger.info("%s on %s with %d edges", method, prepared.dataset.name, len(prepared.parts))
        for note in prepared.notes:
            logger.info(note)
            observer.note(note)
        calls = Calls(experiment.seed, journal, ledger, observer, log.trained)
        fleet = engine(prepared, folder, observer)
        worker = prepared.cloud(folder / "sites")
        edges, cloud = _sites(prepared, calls, fleet, worker, LocalFleet([worker], observer.step))
        theta = experiment.method.run(prepared.theta, edges, cloud, log)
        weights = _save_models(prepared, folder, edges, theta)
    result = Result(
        method=method,
        classes=list(prepared.dataset.classes),
        split=prepared.split,
        rows=log.rows,
        whole=prepared.whole,
        cost=ledger.sites,
        refused=calls.refused,
        curves=log.curves,
        cuts=_cuts(prepared, edges),
        weights=weights,
        provenance=provenance(
            plain(experiment),
            experiment.seed,
            {prepared.dataset.name: prepared.dataset.fingerprint},
            prepared.device,
        ),
    )
    result.write(folder)
    _tidy(folder)
    return result


def _sites(
    prepared: Prepared, calls: Calls, fleet: Fleet, cloud: Worker, cloud_fleet: Fleet
) -> tuple[Edges, Cloud]:
    """What the method sees."""
    quorum = prepared.experiment.fleet.quorum
    edges = Edges(calls, fleet, prepared.network, prepared.needs, quorum, prepared.drawn)
    return edges, Cloud(calls, cloud, cloud_fleet)


@contextmanager
def _passed_over() -> Iterator[None]:
    """Python's garbage collector passes over what is there already: libraries mostly, and no garbage.

    To go through them takes a fifth of a second, each time, in which no thread can train.
    """
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


def _set_up_torch(prepared: Prepared) -> None:
    if prepared.experiment.fleet.threads:
        torch.set_num_threads(prepared.experiment.fleet.threads)
    if prepared.device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def _save_models(prepared: Prepared, folder: Path, edges: Edges, theta: Params | None) -> dict[str, str]:
    """Writes what each site ended with, once for all that ended with the same; returns site -> file."""
    (folder / "weights").mkdir(exist_ok=True)
    card = Card.of_dataset(prepared.dataset, prepared.experiment.model)
    collected = edges.collect()
    sites = [update.site for update in collected] + [CLOUD] * (theta is not None)
    files = {site: f"weights/{site}.safetensors" for site in sites}
    alike: dict[tuple[str, Cut | None], list[Update]] = {}
    for update in collected:
        assert update.blob is not None
        alike.setdefault((update.blob.sha256, edges.cut_of(update.site)), []).append(update)

    def save(site: str, params: Params, cut: Cut | None) -> None:
        metadata = replace(card, cut=None if cut is None else cut.header()).metadata()
        save_weights(folder / files[site], params, metadata, named=False)

    def save_alike(updates: list[Update]) -> None:
        first, *others = updates
        save(first.site, first.params, edges.cut_of(first.site))
        if others:
            lying = Blob.at(folder / files[first.site])
            for other in others:
                lying.write(folder / files[other.site], named=False)

    with ThreadPoolExecutor(WRITERS) as writers:  # opened and written a few at a time, however many there are
        list(writers.map(save_alike, alike.values()))
    if theta is not None:
        save(CLOUD, theta, None)
    sync(folder / "weights")
    return files


def _cuts(prepared: Prepared, edges: Edges) -> CutsRecord | None:
    """What the edges ended with, each part once; None where all hold the whole model."""
    holders: dict[Cut, list[str]] = {}
    for site in prepared.parts:
        if (cut := edges.cut_of(site)) is not None:
            holders.setdefault(cut, []).append(site)
    if not holders:
        return None
    return CutsRecord(
        groups={group.name: group.width for group in prepared.network.structure.groups},
        parts=[PartRecord(sites=sites, **cut.header()) for cut, sites in holders.items()],
    )


def _identity(prepared: Prepared) -> dict[str, str]:
    return {
        "experiment": hashlib.sha256(prepared.experiment.toml().encode()).hexdigest(),
        "data": prepared.dataset.fingerprint,
        "sheaf": importlib.metadata.version("sheaf"),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }


def _tidy(folder: Path) -> None:
    """What only an unfinished run needs goes: held models, arrivals, the journal's tensors (lines stay)."""
    names = "journal/*.safetensors", "sites/*", "incoming/*"
    paths = [path for name in names for path in folder.glob(name) if path.is_file()]
    with ThreadPoolExecutor(REMOVERS) as removers:  # one waits for the disk as long as many do
        list(removers.map(lambda path: path.unlink(missing_ok=True), paths))
    for each in ("sites", "incoming"):
        shutil.rmtree(folder / each, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise RunFolderError(f"{folder} is in use by another run") from error


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with listening(handler):
        yield
