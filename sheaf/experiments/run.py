"""Run an experiment in a folder, or resume it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sheaf.core.errors import FleetError, RunFolderError, SheafError
from sheaf.experiments import processes, run_folder
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.execution import Engine, execute, in_process
from sheaf.experiments.memory_check import check_memory
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.experiments.start_from import StartModels
from sheaf.runtime.journal import answered
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import Result


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
            return execute(setup, folder, observer, engine)
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
        return execute(prepare_again(), folder, observer, engine)
