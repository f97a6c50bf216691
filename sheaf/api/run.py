"""Run an experiment from Python: names, paths and objects in, a finished run out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sheaf.api.finished_run import Run
from sheaf.api.given import Changes, experiment_of, give_again
from sheaf.api.notebook import make_observer
from sheaf.core import objects
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.experiments.run_folder import new_folder
from sheaf.experiments.setup import prepare
from sheaf.report.run_name import experiment_name
from sheaf.runtime.observer import Observer


def run(
    experiment: str | Path | Experiment = "default",
    *,
    out: str | Path | None = None,
    data: Any = None,
    model: Any = None,
    method: Any = None,
    partition: Any = None,
    seed: int | None = None,
    changes: Changes = (),
    root: str | Path | None = None,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Run:
    """Run an experiment in a new folder and return the finished run.

    Args:
        experiment: the name of a shipped experiment, a TOML file, or an ``Experiment``. The next five
            arguments replace its own.
        out: the run's folder; by default ``runs/METHOD-DATA-MODEL-TIME``.
        data: a dataset's name or folder, a ``sheaf.Dataset``, a torch ``Dataset``, a Hugging Face table,
            (inputs, labels), (train, test) of these, or ``{"train": …, "test": …}``.
        model: a model's name, an ``nn.Module``, whose parameters are the start weights, or a function or
            class that returns one.
        method: a name, a table such as ``{"name": "fedavg", "rounds": 9}``, or an instance such as
            ``ECAvg(rounds=2)``.
        partition: likewise.
        seed: the seed of all random draws.
        changes: further settings: a mapping such as ``{"method.rounds": 3}``, or ``key=value`` strings.
        root: the directory in which named datasets are looked for first.
        progress: whether to show the progress; None shows it in a notebook and on a terminal.
        observer: receives the progress instead.

    Raises:
        SheafError: any error that the caller can fix.
    """
    base = None if root is None else Path(root)
    settings = experiment_of(
        experiment,
        data=data,
        model=model,
        method=method,
        partition=partition,
        seed=seed,
        changes=changes,
        root=base,
    )
    folder = new_folder(settings) if out is None else Path(out)
    setup = prepare(settings, base)
    watcher = observer or make_observer(progress, experiment_name(settings), folder)
    with threads_kept():
        runs.start(setup, folder, command(settings, base), watcher)
    return Run(folder)


def resume(
    folder: str | Path,
    *,
    data: Any = None,
    model: Any = None,
    root: str | Path | None = None,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Run:
    """Continue the run in ``folder`` and return it; the result is that of an uninterrupted run.

    Args:
        folder: the run's folder.
        data: its dataset, if that was an object of another process.
        model: its model, likewise, with the same start weights.
        root: the directory in which named datasets are looked for first; by default as in ``run``.
        progress: as in ``run``.
        observer: as in ``run``.

    Raises:
        RunFolderError: the folder has no run, a run of another experiment, or a damaged one; or data or model
            are not those of the run.
    """
    folder = Path(folder)
    give_again(folder, data, model, resume=True)
    watcher = observer or make_observer(progress, f"resuming {folder}", folder)
    with threads_kept():
        runs.resume(folder, data=None if root is None else Path(root), observer=watcher)
    return Run(folder)


def load(folder: str | Path, *, data: Any = None, model: Any = None) -> Run:
    """Return the finished run in ``folder``.

    Args:
        folder: the run's folder.
        data: its dataset, if that was an object of another process, for exports that compare with it.
        model: its model, likewise. Only its structure must be the same.

    Raises:
        RunFolderError: the folder holds no finished run, or data or model are not those of the run.
    """
    loaded = Run(Path(folder))
    give_again(loaded.folder, data, model, resume=False)
    return loaded


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch the number of threads back that ``fleet.threads`` changes; the program may need them."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def command(settings: Experiment, root: Path | None) -> dict[str, Any]:
    """Return the arguments that resuming needs beside the experiment."""
    records = objects.records([settings.data.name, settings.model.name])
    place: dict[str, Any] = {"data": None if root is None else str(root.resolve())}
    return place | ({"objects": records} if records else {})
