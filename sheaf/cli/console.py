"""Shared by the commands: consoles, the tables of a finished run, and hints on resuming."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from sheaf.core.errors import DevicesError, SheafError

if TYPE_CHECKING:
    from sheaf.experiments.config import Experiment


def output_console() -> Console:
    """Return the console on standard output, at most 120 columns wide; 100 without terminal and $COLUMNS.

    It prints text as it is: names may look like markup, as ``[silence]`` and ``:dog:`` do.
    """
    console = Console(markup=False, emoji=False)
    if not (console.is_terminal or "COLUMNS" in os.environ):
        return Console(width=100, markup=False, emoji=False)
    return console if console.width <= 120 else Console(width=120, markup=False, emoji=False)


def error_console() -> Console:
    """Return the console on standard error, for one-line messages."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_line(text: str) -> None:
    """Print text on standard output without wrapping or markup."""
    output_console().print(text, highlight=False, soft_wrap=True)


def print_result(console: Console, folder: Path, every: bool = False) -> None:
    """Print the verdict on a finished run and its tables; ``every`` also lists each of many edges."""
    from sheaf.report.refusals import refusal_lines
    from sheaf.report.replacements import replacement_lines
    from sheaf.report.terminal_costs import cost_table
    from sheaf.report.terminal_tables import accuracy_table, verdict_lines
    from sheaf.report.terminal_timeline import time_table
    from sheaf.runtime.result import Result

    result = Result.read(folder)
    console.print(verdict_lines(result))
    console.print(accuracy_table(result, every))
    if result.on_cloud:
        title = "Final models of the devices, on the cloud's test data"
        console.print(accuracy_table(replace(result, rows=result.on_cloud), every, title))
    console.print(cost_table(result.cost, every=every))
    if result.time is not None and result.time.calls:
        console.print(time_table(result.time))
    for line in [*refusal_lines(result.refused), *replacement_lines(result.replacements, every)]:
        console.print(Text(line))
    console.print(Text(f"folder: {folder}"), soft_wrap=True)


def run_title(experiment: str, settings: Experiment) -> str:
    """Return the line that is printed above a run."""
    from sheaf.core.settings import plain

    method = plain(settings.method)["name"]
    return f"{experiment}: {method} on {settings.data.name}, seed {settings.seed}"


def refuse_with_resume(options: Mapping[str, Any]) -> None:
    """Check that no option is set that --resume excludes.

    Args:
        options: option -> value.

    Raises:
        SheafError: an option is set.
    """
    for name, value in options.items():
        if value:
            raise SheafError(
                f"--resume continues a run with its own settings: remove {name}, or start a new run"
            )


def command_line(command: Sequence[str], options: Mapping[str, Iterable[object]]) -> str:
    """Return a command for a shell, with each option for each of its values; None stands for no option."""
    words = list(command)
    for option, values in options.items():
        words += [word for value in values if value is not None for word in (option, str(value))]
    return shlex.join(words)


@contextmanager
def repeat_hint(folder: Path, command: str) -> Iterator[None]:
    """Print the command that continues the runs in ``folder`` if Ctrl-C stops them.

    Raises:
        Exit: Ctrl-C was pressed; the exit code is 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        if folder.exists():
            done = len(list(folder.glob("*/result.json")))
            error_console().print(f"stopped after {done} finished runs; continue with: {command}")
        raise typer.Exit(130) from None


@contextmanager
def resume_hint(folder: Path, command: str = "sheaf run") -> Iterator[None]:
    """Report how to resume the run in ``folder`` if Ctrl-C or an operating system error stops it.

    Raises:
        Exit: Ctrl-C was pressed; the exit code is 130.
        SheafError: an operating system error occurred, such as a full disk.
        OSError: likewise, before the run had a folder.
    """
    hint = f"{command} --resume {folder}"
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "experiment.toml").exists():
            error_console().print(f"stopped; continue with: {hint}")
        raise typer.Exit(130) from None
    except OSError as error:
        if not os.path.exists(folder / "experiment.toml"):
            raise  # nothing to continue: ``main`` prints it
        path = error.filename or folder
        message = f"{path}: {error.strerror or error}; resolve this, then continue with: {hint}"
        raise SheafError(message) from error


@contextmanager
def reasons_printed() -> Iterator[None]:
    """Print one line for each reason of a ``DevicesError`` that is raised inside the block.

    Raises:
        SheafError: with the summary of the ``DevicesError``.
    """
    try:
        yield
    except DevicesError as error:
        for reason in error.reasons:
            error_console().print(reason)
        raise SheafError(error.summary) from error
