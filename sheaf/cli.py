"""The command line: ``sheaf run``, ``compare``, ``plan``, ``list``, ``show``, ``cloud``, ``edge``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table

from sheaf import cli_fleet
from sheaf.errors import SheafError
from sheaf.terminal import console, errors, resumable, show

if TYPE_CHECKING:
    from sheaf.config import Experiment

app = typer.Typer(
    help="Train one model across edge devices and the cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_fleet.cloud, name="cloud")
app.add_typer(cli_fleet.edge, name="edge")

Source = Annotated[str, typer.Argument(help="A shipped experiment (see: sheaf list) or a TOML file.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: method.pretrain.epochs=3"),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Where datasets are looked for first [default: $SHEAF_DATA]."),
]


@app.command(epilog="Example: sheaf run ecavg-mnist --data ~/data --set method.pretrain.epochs=3")
def run(
    experiment: Source = "ecavg-digits",
    changes: Changes = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder [default: a new one under runs/].")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show settings, split and cost; train and write nothing."),
    ] = False,
) -> None:
    """Run an experiment: trains, prints the tables, and leaves a folder with everything in it."""
    from sheaf import runs
    from sheaf.config import load_experiment
    from sheaf.prepared import prepare
    from sheaf.report.live import Live
    from sheaf.report.tables import cost_table, split_table
    from sheaf.schema import plain

    to = console()
    if resume is not None:
        given = [
            name for name, value in (("--set", changes), ("--out", out), ("--dry-run", dry_run)) if value
        ]
        if given:
            raise SheafError(f"--resume goes on with a run as it was started; {given[0]} cannot change it")
        folder = resume
        with resumable(folder):
            runs.resume(folder, data=data, watch=Live(to, f"resuming {folder}"))
    elif dry_run:
        prepared = prepare(load_experiment(experiment, changes or ()), data)
        to.print(Syntax(prepared.experiment.toml(), "toml", background_color="default", word_wrap=True))
        for note in prepared.notes:
            to.print(f"note: {note}", highlight=False)
        to.print(split_table(prepared.split, prepared.dataset.classes))
        to.print(cost_table(runs.rehearse(prepared).sites, measured=False))
        return
    else:
        settings = load_experiment(experiment, changes or ())
        folder = out or runs.new_folder(experiment)
        title = (
            f"{experiment}: {plain(settings.method)['name']} on {settings.data.name}, seed {settings.seed}"
        )
        with resumable(folder):
            runs.run(settings, data=data, out=folder, watch=Live(to, title))
    show(to, folder)


@app.command(epilog="Example: sheaf compare ecavg-mnist --methods ecavg,fedavg,local,central --seeds 3")
def compare(
    experiment: Source = "ecavg-digits",
    methods: Annotated[
        str, typer.Option(help="Methods, with commas between.")
    ] = "ecavg,fedavg,local,central",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds each method is run with.")] = 1,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=V1,V2", help="Run with each value of a setting: method.share.fraction=0.01,0.1,1"
        ),
    ] = None,
    changes: Changes = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the runs go; what is finished there is reused.")
    ] = None,
) -> None:
    """Run several methods on the same data, seeds and total of training, and print one table."""
    from sheaf import runs
    from sheaf.blob import write_durably
    from sheaf.compare import compare as compare_methods
    from sheaf.config import load_experiment
    from sheaf.report.live import Live
    from sheaf.report.tables import comparison_table

    to = console()
    settings = load_experiment(experiment, changes or ())
    folder = out or runs.new_folder(f"compare-{Path(experiment).stem}")
    names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise SheafError("--methods names no method; such as: --methods ecavg,fedavg")
    swept = None if sweep is None else _swept(experiment, changes or (), sweep)
    watch = partial(Live, to, rows=False)
    summaries = compare_methods(settings, names, seeds, folder, data, watch, swept)
    to.print(comparison_table(summaries))
    write_durably(
        folder / "compare.json",
        json.dumps([asdict(summary) for summary in summaries], indent=1).encode(),
    )
    to.print(f"folder: {folder}", highlight=False, soft_wrap=True)


def _swept(source: str, changes: Iterable[str], sweep: str) -> dict[str, Experiment]:
    """What is said of each value -> the experiment with it."""
    from sheaf.config import load_experiment

    key, _, values = sweep.partition("=")
    if not key or not values:
        raise SheafError(f"--sweep {sweep}: write KEY=V1,V2, such as method.share.fraction=0.01,0.1,1")
    short = key.removeprefix("method.")
    return {
        f"{short}={value}": load_experiment(source, [*changes, f"{key}={value}"])
        for value in values.split(",")
    }


@app.command(epilog="Example: sheaf plan decoupled-cifar10 --out planned.toml")
def plan(
    experiment: Source = "decoupled-cifar10",
    changes: Changes = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the planned experiment there, for sheaf run.")
    ] = None,
) -> None:
    """Fit a cut into each device's budget (fleet.budgets): how wide a part it can train."""
    from sheaf.blob import write_durably
    from sheaf.config import load_experiment
    from sheaf.plan import plan as plan_cuts
    from sheaf.report.tables import plan_table

    to = console()
    planned, rows = plan_cuts(load_experiment(experiment, changes or ()), data)
    to.print(plan_table(rows))
    if out is None:
        to.print(planned.toml(), highlight=False, markup=False)
    else:
        write_durably(out, planned.toml().encode())
        to.print(f"written: {out}; next: sheaf run {out}", highlight=False, soft_wrap=True)


@app.command("list", epilog="Example: sheaf list models")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="experiments, methods, models, data, merges, partitions or cuts; all by default."
        ),
    ] = None,
) -> None:
    """List what there is to choose from, with one line on each."""
    from sheaf import models, plugins
    from sheaf.config import shipped
    from sheaf.errors import UnknownNameError

    kinds: dict[str, Callable[[], dict[str, str]]] = {"experiments": shipped}
    kinds |= {name: partial(plugins.describe, name) for name in plugins.KINDS}
    kinds["models"] = models.names
    if kind is not None and kind not in kinds:
        raise UnknownNameError("list", kind, kinds)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name in [kind] if kind else kinds:
        table.add_row(f"[bold]{name}[/bold]", "")
        for thing, line in kinds[name]().items():
            table.add_row(f"  {thing}", line)
    console().print(table, highlight=False)


@app.command("show", epilog="Example: sheaf show runs/ecavg-digits-20260101-120000")
def show_(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Print the tables of a finished run again."""
    show(console(), folder)


def main() -> None:
    """The entry point: a user's mistake is one line and exit code 2, never a traceback."""
    sys.path.insert(0, os.getcwd())  # a user's own package.module:object lies where the command is given
    try:
        app()
    except SheafError as error:
        errors().print(f"sheaf: {error}")
        sys.exit(2)
