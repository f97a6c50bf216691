"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _complete_experiment(incomplete: str) -> list[str]:
    from sheaf.experiments.shipped import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


Source = Annotated[
    str,
    typer.Argument(
        help="A shipped experiment (see: sheaf list) or a TOML file.", autocompletion=_complete_experiment
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as in method.pretrain.epochs=3."),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Seed of all random draws [default: the experiment's].")
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder to search first for datasets [default: $SHEAF_DATA]."),
]
Every = Annotated[
    bool, typer.Option("--all", help="Print each edge and round in the tables, however many there are.")
]
Out = Annotated[Path | None, typer.Option(help="The run's folder [default: a new one in runs/].")]
Resume = Annotated[Path | None, typer.Option(help="Continue the run in this folder.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the folder that contains the results.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print events as JSON lines (see docs/experiments.md), nothing else.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard event files to the run's folder.")
]
Mlflow = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="Also log to this MLflow server or store.")
]


def split_names(text: str | None) -> list[str]:
    """Return the names in an option, separated by commas, without spaces around them."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def with_seed(changes: list[str] | None, seed: int | None) -> list[str]:
    """Return the changes of ``--set``, and that of ``--seed``."""
    return [*(changes or ()), *([] if seed is None else [f"seed={seed}"])]
