"""The command line: ``sheaf`` with its subcommands, and the entry point."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sheaf.cli import cache, catalogue, cloud, edge, experiments, plan, results, runs
from sheaf.cli.console import error_console, print_line
from sheaf.core.errors import SheafError
from sheaf.core.optional_imports import installed_version

app = typer.Typer(
    help="Train one model across edge devices and the cloud.",
    epilog="Example: sheaf run",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # subcommands inherit them
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(experiments.commands)
app.add_typer(plan.commands)
app.add_typer(catalogue.commands)
app.add_typer(runs.commands)
app.add_typer(results.commands)
app.add_typer(cache.cache, name="cache")
app.add_typer(cloud.cloud, name="cloud")
app.add_typer(edge.edge, name="edge")


def _print_version(value: bool) -> None:
    if value:
        print_line(f"sheaf {installed_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that precede a command."""


def main() -> None:
    """Run the command line.

    A user's mistake, or a file that cannot be read or written, gives a one-line message and exit code 2.
    """
    sys.path.insert(0, os.getcwd())  # for a user's own package.module:object in the current folder
    try:
        app()
    except SheafError as error:
        error_console().print(f"sheaf: {error}")
        sys.exit(2)
    except OSError as error:  # such as a read-only folder or a full disk
        reason = error.strerror or str(error) or type(error).__name__
        place = f"{error.filename}: " if error.filename else ""
        error_console().print(f"sheaf: {place}{reason}; check that the place exists and can be written")
        sys.exit(2)
