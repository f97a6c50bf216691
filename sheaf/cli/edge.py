"""The commands for a device of a real fleet: ``sheaf edge``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sheaf.cli.fleet import group, provisioning

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
