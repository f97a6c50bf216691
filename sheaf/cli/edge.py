"""The commands for a device of a real fleet: ``sheaf edge``."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import output_console, print_line
from sheaf.cli.fleet import group, provisioning
from sheaf.core.errors import FleetError, one_line

if TYPE_CHECKING:
    from sheaf.fleets.remote.device_models import Listed

edge = group("Take part in a fleet: commands for a device.", "sheaf edge join shop-1.kit --data /srv/images")


@edge.command(epilog="Example: sheaf edge join shop-1.kit --data /srv/images")
def join(
    kit: Annotated[Path, typer.Argument(help="The device's kit file, with mode 0600.")],
    data: Annotated[Path, typer.Option(help="The device's own data: a folder or a .safetensors file.")],
    settings: Annotated[
        Path | None, typer.Option("--settings", help="The device's settings and permissions, edge.toml.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the device's state [default: next to the kit].")
    ] = None,
) -> None:
    """Join a fleet; reconnects on its own and runs until it is stopped."""
    provisioning()
    from sheaf.fleets.nvflare.join import configure_device

    name, folder = configure_device(kit, data, settings, state)
    os.execv(sys.executable, [sys.executable, "-m", "sheaf.fleets.nvflare.wait", str(folder), name])


State = Annotated[
    Path | None,
    typer.Option(
        envvar="SHEAF_STATE",
        help="The device's folder, which sheaf edge join created [default: the only *.state folder here].",
    ),
]


@edge.command(epilog="Example: sheaf edge status --state shop-1.state")
def status(state: State = None) -> None:
    """Print this device's current model, and how many of its samples may leave it and have left it."""
    folder = state_folder(state)
    from sheaf.fleets.remote.device_models import DeviceModels
    from sheaf.fleets.remote.device_settings import read_joined
    from sheaf.fleets.remote.privacy_record import PrivacyRecord
    from sheaf.fleets.remote.sample_record import SampleRecord

    joined = read_joined(folder)
    current = DeviceModels(folder).current()
    allowance = SampleRecord(folder).allowance(joined.own.share)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("device", Text(joined.edge))
    table.add_row("data", Text(str(joined.data)))
    if current is None:
        table.add_row("model", "none yet: the first run stores one")
    else:
        accuracy = "" if current.kept.held_out is None else f", held-out accuracy {current.kept.held_out:.4f}"
        table.add_row("model", Text(f"{current.kept.number}, of {one_line(current.kept.name)}{accuracy}"))
        table.add_row("", Text(str(DeviceModels(folder).current_file)))
    if not allowance.samples:
        table.add_row("samples", "not counted yet: the first run counts them")
    else:
        table.add_row("samples", f"{allowance.samples:,}, of which {allowance.held_out:,} are held out")
        limit = f"max_fraction = {joined.own.share.max_fraction:g}"
        if joined.own.share.max_mb is not None:
            limit += f", max_mb = {joined.own.share.max_mb:g}"
        table.add_row("may leave", f"{allowance.allowed:,} over all runs ([share] {limit})")
        table.add_row("have left", f"{allowance.used:,}")
        table.add_row("left", f"{allowance.left:,}")
    may = "may leave" if joined.own.share.statistics else "may not leave"
    table.add_row("statistics", f"{may} ([share] statistics = {str(joined.own.share.statistics).lower()})")
    if joined.own.share.max_epsilon is not None:
        spent, most = PrivacyRecord(folder).epsilon, joined.own.share.max_epsilon
        table.add_row("privacy loss", f"{spent:.3g} over all runs ([share] max_epsilon = {most:g})")
    output_console().print(table, highlight=False)


@edge.command(epilog="Example: sheaf edge models --state shop-1.state")
def models(state: State = None) -> None:
    """List the models that this device keeps, the newest first."""
    folder = state_folder(state)
    from sheaf.fleets.remote.device_models import DeviceModels
    from sheaf.report.formatting import format_bytes

    listed = DeviceModels(folder).listed()
    if not listed:
        print_line(f"{folder} holds no model yet; the first run stores one")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("model", "when", "run"):
        table.add_column(heading, overflow="fold")
    table.add_column("held-out\naccuracy", justify="right")
    table.add_column("size", justify="right")
    table.add_column("")
    for each in listed:
        kept = each.kept
        table.add_row(
            str(kept.number),
            datetime.fromisoformat(kept.saved).astimezone().strftime("%Y-%m-%d %H:%M"),
            Text(one_line(kept.name)),
            "-" if kept.held_out is None else f"{kept.held_out:.4f}",
            format_bytes(each.size),
            _state(each),
        )
    console = output_console()
    console.print(table, highlight=False)
    for each in listed:
        if each.kept.why:
            console.print(Text(f"model {each.kept.number}: {one_line(each.kept.why)}"))


@edge.command(epilog="Example: sheaf edge rollback --state shop-1.state")
def rollback(
    number: Annotated[
        int | None,
        typer.Argument(metavar="MODEL", help="The model's number [default: the one before the current one]."),
    ] = None,
    state: State = None,
) -> None:
    """Make an earlier model the current one again.

    The next run compares its model with this one.
    """
    folder = state_folder(state)
    from sheaf.fleets.remote.device_models import DeviceModels

    before, now = DeviceModels(folder).roll_back(number)
    if before.kept.number == now.kept.number:
        print_line(f"model {now.kept.number} is current already")
    else:
        print_line(
            f"model {now.kept.number}, of {one_line(now.kept.name)}, is current again; "
            f"to undo this: sheaf edge rollback {before.kept.number}"
        )


@edge.command(epilog="Example: sheaf edge predict photo.jpg")
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Images, or sounds (WAV, MP3, …).")],
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
) -> None:
    """Classify images or sounds with this device's current model."""
    folder = state_folder(state)
    from sheaf.cli.results import print_predictions
    from sheaf.fleets.remote.device_models import DeviceModels
    from sheaf.fleets.remote.device_settings import read_joined
    from sheaf.fleets.remote.model_keeper import load_allowed

    file = DeviceModels(folder).current_file
    if not file.exists():
        raise FleetError(f"{folder} holds no model yet; the first run of the fleet stores one")
    print_predictions(load_allowed(file, read_joined(folder).own.edge.allow), files, as_json)


def _state(listed: Listed) -> str:
    """Return the last column of the table of models."""
    if listed.current:
        return "current"
    if listed.abandoned:
        return "rolled back"
    return "" if listed.kept.replaced else "kept out"


def state_folder(state: Path | None) -> Path:
    """Return the device's folder: the given one, or the only one in the current folder.

    Raises:
        FleetError: the folder is missing, or several are possible.
    """
    found = [state] if state is not None else sorted(Path().glob("*.state"))
    found = [folder for folder in found if (folder / "join.json").is_file()]
    if len(found) == 1:
        return found[0]
    if state is not None:
        raise FleetError(f"{state} is no device's folder (no join.json); sheaf edge join creates one")
    if not found:
        raise FleetError("no device's folder (*.state) is here; name it with --state, as sheaf edge join did")
    raise FleetError(f"{len(found)} devices' folders are here: name one with --state {found[0]}")
