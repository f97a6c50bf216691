"""The output of a run: live table and tables, JSON lines, or only its folder; and trackers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sheaf.cli.console import print_result
from sheaf.core.errors import SheafError

if TYPE_CHECKING:
    from sheaf.runtime.observer import Observer


def observer_factory(
    console: Console, quiet: bool, as_json: bool, tensorboard: bool, mlflow: str | None, rows: bool = True
) -> Callable[[str, Path], Observer]:
    """Return a function that makes the observer of a run from its title and its folder."""
    from sheaf.report.live import Live
    from sheaf.report.trackers.json_lines import JsonLines
    from sheaf.report.trackers.mlflow import MLflow
    from sheaf.report.trackers.tensorboard import TensorBoard
    from sheaf.runtime.observer import NullObserver, Observers

    if quiet and as_json:
        raise SheafError("--quiet and --json exclude each other: remove one")

    def observer_for(title: str, folder: Path) -> Observer:
        observers: list[Observer] = []
        if mlflow:
            observers.append(MLflow(mlflow, folder))
        if tensorboard:
            observers.append(TensorBoard(folder))
        if quiet:
            observers.append(NullObserver())
        else:
            observers.append(JsonLines(sys.stdout, folder) if as_json else Live(console, title, rows))
        return Observers(observers)

    return observer_for


def refuse_with_dry_run(quiet: bool, as_json: bool, tensorboard: bool, mlflow: str | None) -> None:
    """Check that no option on a run's output is set.

    Raises:
        SheafError: one is.
    """
    if quiet or as_json or tensorboard or mlflow:
        raise SheafError("--dry-run excludes --quiet, --json, --tensorboard and --mlflow: remove them")


def print_json_event(event: str, folder: Path, **fields: object) -> None:
    """Print an event of ``--json``."""
    from sheaf.report.trackers.json_lines import JsonLines

    JsonLines(sys.stdout, folder).write(event, **fields)


def print_finished(console: Console, folder: Path, every: bool, quiet: bool, as_json: bool) -> None:
    """Print a finished run: its folder, a JSON event, or its verdict and tables."""
    if quiet:
        print(folder)
    elif as_json:
        print_json_event("finished", folder, result=str(folder / "result.json"))
    else:
        print_result(console, folder, every)
