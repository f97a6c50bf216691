"""What the commands share: consoles, a finished run's tables, and how a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from sheaf.core.errors import SheafError

if TYPE_CHECKING:
    from sheaf.experiments.config import Experiment


def console() -> Console:
    """Where results go: at most 100 columns."""
    found = Console()
    return found if found.width <= 100 and found.is_terminal else Console(width=100)


def errors() -> Console:
    """Where a user's mistakes are told, a line each."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def show(to: Console, folder: Path) -> None:
    """Prints the tables of a finished run."""
    from sheaf.report.terminal_tables import accuracy_table, cost_table
    from sheaf.runtime.result import Result

    result = Result.read(folder)
    to.print(accuracy_table(result))
    to.print(cost_table(result.cost))
    for refusal in result.refused:
        to.print(f"refused in call {refusal.call}: {refusal.site}: {refusal.why}", highlight=False)
    to.print(f"folder: {folder}", highlight=False, soft_wrap=True)


def title(experiment: str, settings: Experiment) -> str:
    """What is said above a run."""
    from sheaf.core.settings import plain

    method = plain(settings.method)["name"]
    return f"{experiment}: {method} on {settings.data.name}, seed {settings.seed}"


def unchanged(given: Mapping[str, Any]) -> None:
    """A run that is gone on with takes none of these options.

    Raises:
        SheafError: one is set.
    """
    for name, value in given.items():
        if value:
            raise SheafError(f"--resume goes on with a run as it was started; {name} cannot change it")


@contextmanager
def resumable(folder: Path, command: str = "sheaf run") -> Iterator[None]:
    """Says how to go on with a run that Ctrl-C or an error stopped."""
    hint = f"go on with: {command} --resume {folder}"
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "experiment.toml").exists():
            errors().print(f"stopped; {hint}")
        raise typer.Exit(130) from None
    except OSError as error:
        place = error.filename or folder
        raise SheafError(f"{place}: {error.strerror or error}; mend that, then {hint}") from error
