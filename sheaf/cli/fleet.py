"""Shared by the commands of a real fleet, ``sheaf cloud`` and ``sheaf edge``."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

FleetFolder = Annotated[
    Path, typer.Option("--fleet", envvar="SHEAF_FLEET", help="The fleet's folder.", show_default=True)
]
FLEET = Path("fleet")

Edges = Annotated[
    str | None,
    typer.Option(
        metavar="P1,P2",
        help="Devices to ask, by patterns: shop-*, berlin/* (a group), label:camera [default: all].",
    ),
]
StartFrom = Annotated[
    Path | None,
    typer.Option("--from", metavar="RUN", help="Start cloud and devices with the models of this run."),
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for devices to connect at the start.")]


def group(text: str, example: str) -> typer.Typer:
    """Return a group of commands with a help text and an example."""
    return typer.Typer(help=text, epilog=f"Example: {example}", no_args_is_help=True, rich_markup_mode=None)


def provisioning() -> ModuleType:
    """Return the provisioning module. It is imported on demand, as its import is slow."""
    from sheaf.fleets.nvflare.processes import check_installed

    check_installed()
    from sheaf.fleets.nvflare import provision

    return provision
