"""The commands for the cache of decoded examples: ``cache ls`` and ``cache rm``."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import output_console, print_line
from sheaf.core.errors import DataError, SheafError

if TYPE_CHECKING:
    from sheaf.data.example_cache import Entry

cache = typer.Typer(
    help="List or remove decoded datasets on the disk.",
    epilog="Example: sheaf cache ls",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache.command("ls", epilog="Example: sheaf cache ls")
def ls() -> None:
    """List the decoded datasets in the cache, the last used first."""
    from sheaf.data.example_cache import entries, examples_folder

    listed = entries()
    if listed:
        table = Table("dataset", "examples", "shape", "MB", "last used", box=None, pad_edge=False)
        table.add_column("source", overflow="fold")
        for entry in listed:
            table.add_row(*map(Text, _cells(entry)))
        output_console().print(table, highlight=False)
    total = sum(entry.size for entry in listed)
    print_line(f"{_count(len(listed), 'dataset')}, {total / 1e6:,.1f} MB in {examples_folder()}")


def _cells(entry: Entry) -> tuple[str, ...]:
    train, test = entry.shapes
    return (
        entry.name,
        f"{train[0]:,} + {test[0]:,}",
        "x".join(map(str, train[1:])),
        f"{entry.size / 1e6:,.1f}",
        f"{_age(time.time() - entry.used)} ago",
        entry.source,
    )


def _age(seconds: float) -> str:
    """Return a duration such as ``3 hours``."""
    count, unit = max(0, seconds), "second"
    for size, larger in ((60, "minute"), (60, "hour"), (24, "day")):
        if count < size:
            break
        count, unit = count / size, larger
    return _count(int(count), unit)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@cache.command(epilog="Example: sheaf cache rm mnist")
def rm(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A dataset or source of: sheaf cache ls.", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all decoded datasets and checks of models.")
    ] = False,
) -> None:
    """Remove decoded datasets from the cache; the next run that needs one decodes it again."""
    from sheaf.core.cache_folder import checks_folder
    from sheaf.data.example_cache import entries, remove, remove_all

    if everything == (name is not None):
        raise SheafError("write either sheaf cache rm NAME or sheaf cache rm --all")
    chosen = [entry for entry in entries() if everything or name in (entry.name, entry.source)]
    if name is not None and not chosen:
        raise DataError(f"no dataset {name!r} is in the cache; sheaf cache ls lists them")
    try:
        if everything:
            remove_all()
            if checks_folder().exists():
                shutil.rmtree(checks_folder())
        else:
            for entry in chosen:
                remove(entry.folder)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be removed: {error.strerror}") from error
    print_line(
        f"removed {_count(len(chosen), 'dataset')}, {sum(entry.size for entry in chosen) / 1e6:,.1f} MB"
    )
