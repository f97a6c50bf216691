"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Argument(help="A shipped experiment (see: sheaf list) or a TOML file.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: method.pretrain.epochs=3"),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Where datasets are looked for first [default: $SHEAF_DATA]."),
]
Out = Annotated[Path | None, typer.Option(help="The run's folder [default: a new one under runs/].")]
Resume = Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")]
