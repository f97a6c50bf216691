"""The command ``list``: what an experiment can name, and the settings of one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import output_console
from sheaf.cli.listings import KINDS, listings
from sheaf.core.errors import UnknownNameError

if TYPE_CHECKING:
    from sheaf.core.settings_help import SettingHelp

commands = typer.Typer(rich_markup_mode=None)

SET = {
    "methods": ("method", "method."),
    "partitions": ("partition", "partition."),
    "models": ("model.name", "model.options."),
    "data": ("data.name", "data."),
    "cuts": ("method.cut", "method.cut."),
    "losses": ("method.pretrain.loss", "method.pretrain.loss."),
    "merges": ("method.merge", "method.merge."),
    "codecs": ("fleet.upload", "fleet.upload."),
}
"""Kind -> the key that names a plugin in an experiment, and the prefix of its settings; for the hints."""


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


@commands.command("list", epilog="Example: sheaf list methods ecavg")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(KINDS)} [default: all].",
            show_default=False,
            autocompletion=_complete_kind,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One of its names: print its settings.", show_default=False)
    ] = None,
) -> None:
    """List the available experiments, methods, models and other parts; with a name, its settings."""
    lists = listings()
    if kind is not None and kind not in lists:
        raise UnknownNameError("list", kind, lists)
    if kind is not None and name is not None:
        _print_one(kind, name)
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for each in [kind] if kind else lists:
        table.add_row(Text(each, style="bold"), "")
        for item, description in lists[each]().items():
            table.add_row(Text(f"  {item}"), Text(description))
    output_console().print(table, highlight=False)


def _print_one(kind: str, name: str) -> None:
    from sheaf.cli.reference import describe_one

    console = output_console()
    part = describe_one(kind, name)
    console.print(Text(part.text if kind in ("experiments", "profiles") else _flow(part.text)))
    for title, settings in part.tables:
        console.print()
        console.print(Text(title, style="bold"))
        console.print(_table(settings), highlight=False)
    for line in _hints(kind, name, part.tables[0][1] if part.tables else []):
        console.print(Text(line), soft_wrap=True)


def _flow(text: str) -> str:
    """Join the lines of each paragraph of a docstring; lists stay as they are."""
    paragraphs = text.replace("``", "").split("\n\n")
    return "\n\n".join(each if "\n- " in each else " ".join(each.split()) for each in paragraphs)


def _table(settings: list[SettingHelp]) -> Table:
    """Return a table of settings; each text is cut to its first sentence."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
    for heading in ("setting", "type", "default"):
        table.add_column(heading, overflow="fold")
    table.add_column("meaning", ratio=1)
    for setting in settings:
        first = setting.text.replace("``", "").partition(". ")[0].rstrip(".")
        table.add_row(*map(Text, (setting.name, setting.type, setting.default, first)))
    return table


def _spec(name: str) -> str:
    """Return a profile of edges that has this device, or this link."""
    from sheaf.profiles.profile import read_profile

    return name if read_profile(name).device is not None else f"raspberry-pi-4+{name}"


def _hints(kind: str, name: str, settings: list[SettingHelp]) -> Iterator[str]:
    if kind == "experiments":
        yield f"run it: sheaf run {name}"
    elif kind == "profiles":
        yield f"use it: sheaf run EXPERIMENT --set 'fleet.devices.mix={{\"{_spec(name)}\" = 1}}'"
    elif kind in SET:
        key, prefix = SET[kind]
        simple = next((each.name for each in settings if not each.type[0].isupper()), None)
        change = f" --set {prefix}{simple}=…" if simple else ""
        yield f"use it: sheaf run --set {key}={name}{change}"
