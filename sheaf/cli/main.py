"""The command line: ``sheaf`` with its subcommands, and the entry point."""

from __future__ import annotations

import os
import sys

import typer

from sheaf.cli import cache, experiments, fleet, results
from sheaf.cli.console import error_console
from sheaf.core.errors import SheafError

app = typer.Typer(
    help="Train one model across edge devices and the cloud.",
    epilog="Example: sheaf run ecavg-digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(experiments.commands)
app.add_typer(results.commands)
app.add_typer(cache.cache, name="cache")
app.add_typer(fleet.cloud, name="cloud")
app.add_typer(fleet.edge, name="edge")


def main() -> None:
    """Run the command line. A user's mistake gives a one-line message and exit code 2, no traceback."""
    sys.path.insert(0, os.getcwd())  # for a user's own package.module:object in the current folder
    try:
        app()
    except SheafError as error:
        error_console().print(f"sheaf: {error}")
        sys.exit(2)
