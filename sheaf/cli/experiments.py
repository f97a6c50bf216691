"""The commands for experiments in one process: ``run``, ``compare`` and ``profile``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from sheaf.cli.console import (
    command_line,
    error_console,
    output_console,
    print_line,
    refuse_with_resume,
    repeat_hint,
    resume_hint,
    run_title,
)
from sheaf.cli.observers import observer_factory, print_finished, print_json_event, refuse_with_dry_run
from sheaf.cli.options import (
    Changes,
    Data,
    Every,
    Json,
    Mlflow,
    Out,
    Quiet,
    Resume,
    Seed,
    Source,
    TensorBoard,
    split_names,
    with_seed,
)
from sheaf.core.errors import SheafError

if TYPE_CHECKING:
    from sheaf.experiments.budget import Per
    from sheaf.experiments.config import Experiment

commands = typer.Typer(rich_markup_mode=None)


@commands.command(epilog="Example: sheaf run ecavg-mnist --data ~/data --set method.pretrain.epochs=3")
def run(
    experiment: Source = "default",
    changes: Changes = None,
    seed: Seed = None,
    data: Data = None,
    out: Out = None,
    resume: Resume = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print settings, data split and cost; train and write nothing."),
    ] = False,
    every: Every = False,
    quiet: Quiet = False,
    as_json: Json = False,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
) -> None:
    """Run an experiment and write its results to a folder."""
    changes = with_seed(changes, seed)
    from sheaf.experiments import run as runs
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.run_folder import new_folder

    console = output_console()
    observer_for = observer_factory(console, quiet, as_json, tensorboard, mlflow)
    if resume is not None:
        refuse_with_resume({"--seed": seed is not None, "--set": changes, "--out": out, "--dry-run": dry_run})
        folder = resume
        with resume_hint(folder):
            runs.resume(folder, data=data, observer=observer_for(f"resuming {folder}", folder))
    elif dry_run:
        refuse_with_dry_run(quiet, as_json, tensorboard, mlflow)
        _print_dry_run(console, load_experiment(experiment, changes or ()), data, every)
        return
    else:
        settings = load_experiment(experiment, changes or ())
        folder = out or new_folder(settings)
        with resume_hint(folder):
            observer = observer_for(run_title(experiment, settings), folder)
            runs.run(settings, data=data, out=folder, observer=observer)
    print_finished(console, folder, every, quiet, as_json)


def _print_dry_run(console: Console, settings: Experiment, data: Path | None, every: bool) -> None:
    from sheaf.experiments.setup import prepare
    from sheaf.experiments.speed import estimate
    from sheaf.report.terminal_costs import estimate_table
    from sheaf.report.terminal_tables import split_table

    prepared = prepare(settings, data)
    console.print(Syntax(prepared.experiment.toml(), "toml", background_color="default", word_wrap=True))
    for note in prepared.notes:
        console.print(Text(f"note: {note}"))
    console.print(split_table(prepared.split, prepared.dataset.classes, every))
    console.print(estimate_table(estimate(prepared), every))


@commands.command(epilog="Example: sheaf compare ecavg-mnist --methods ecavg,fedavg,local --seeds 3")
def compare(
    experiment: Source = "default",
    methods: Annotated[
        str, typer.Option(metavar="M1,M2", help="Methods, separated by commas.")
    ] = "ecavg,fedavg,local,central",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per method.")] = 1,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Run each method with each value of a setting, as in method.share.fraction=0.01,0.1,1.",
        ),
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(
            metavar="seconds|bytes|joules",
            help="Stop all methods at the same budget of this, and rank them.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="The budget of --per [default: what the experiment's own method spends]."),
    ] = None,
    changes: Changes = None,
    seed: Seed = None,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the runs; finished runs in it are reused [default: in runs/]."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
) -> None:
    """Compare methods on the same data, seeds and training budget."""
    changes = with_seed(changes, seed)
    from sheaf.core.atomic_io import write_durably
    from sheaf.experiments.compare import compare as compare_methods
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.run_folder import new_folder
    from sheaf.report.terminal_comparison import comparison_table

    console = output_console()
    settings = load_experiment(experiment, changes or ())
    folder = out or new_folder(settings, comparison=True)
    names = list(dict.fromkeys(split_names(methods)))
    if not names:
        raise SheafError("--methods names no method; write for example: --methods ecavg,fedavg")
    cost = _cost(settings, per, budget)
    variants = None if sweep is None else _sweep_variants(experiment, changes or (), sweep)
    observer_for = observer_factory(console, quiet, as_json, tensorboard, mlflow, rows=False)
    changed = [change for change in changes or () if change.startswith(("method=", "method."))]
    given: dict[str, Iterable[object]] = {"--methods": [",".join(names)], "--seeds": [seeds]}
    given |= {"--set": changes or (), "--sweep": [sweep], "--data": [data], "--out": [folder]}
    given |= {"--per": [per], "--budget": [budget]}
    repeat = command_line(["sheaf", "compare", experiment], given)
    with repeat_hint(folder, repeat):
        summaries = compare_methods(
            settings, names, seeds, folder, data, observer_for, variants, changed, cost, budget
        )
    plain = [asdict(summary) for summary in summaries]
    write_durably(folder / "compare.json", json.dumps(plain, indent=1).encode())
    if quiet:
        print(folder)
        return
    if as_json:
        print_json_event("compared", folder, methods=plain)
        return
    console.print(comparison_table(summaries))
    console.print(Text(f"folder: {folder}"), soft_wrap=True)


def _cost(settings: Experiment, per: str | None, budget: float | None) -> Per | None:
    """Return the cost of ``--per``, checked against the experiment."""
    from sheaf.experiments.budget import check_cost

    if per is None:
        if budget is not None:
            raise SheafError(f"--budget {budget:g} needs a cost: add --per seconds, bytes or joules")
        return None
    if per not in ("seconds", "bytes", "joules"):
        raise SheafError(f"--per {per}: allowed: seconds, bytes, joules")
    if budget == 0:
        raise SheafError("--budget 0: give an amount above 0")
    cost: Per = per  # type: ignore[assignment]
    check_cost(settings, cost)
    return cost


def _sweep_variants(source: str, changes: Iterable[str], sweep: str) -> dict[str, Experiment]:
    """Return ``KEY=VALUE`` -> the experiment with that value, for each value of the sweep."""
    from sheaf.experiments.config import load_experiment

    key, _, values = sweep.partition("=")
    if not key or not values:
        raise SheafError(f"--sweep {sweep}: write KEY=V1,V2, such as method.share.fraction=0.01,0.1,1")
    short = key.removeprefix("method.")
    return {
        f"{short}={value}": load_experiment(source, [*changes, f"{key}={value}"])
        for value in values.split(",")
    }


@commands.command(epilog="Example: sheaf profile ecavg-digits --out mine.toml --watts-idle 3 --watts-busy 9")
def profile(
    experiment: Source = "default",
    changes: Changes = None,
    data: Data = None,
    watts_idle: Annotated[
        float | None, typer.Option(min=0, help="Power of the idle machine, from a meter [default: unknown].")
    ] = None,
    watts_busy: Annotated[
        float | None, typer.Option(min=0, help="Power while it trains, from a meter [default: unknown].")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the profile to this TOML file, for fleet.devices [default: print]."),
    ] = None,
) -> None:
    """Measure for ten seconds how fast this machine trains an experiment's model; for fleet.devices."""
    import tomli_w

    from sheaf.core.atomic_io import write_durably
    from sheaf.core.settings import plain
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.measure_profile import measure_profile
    from sheaf.experiments.setup import prepare
    from sheaf.fleets.remote.training_heap import reuse_blocks

    reuse_blocks()  # as a fleet's device does; this process does nothing else
    setup = prepare(load_experiment(experiment, changes or ()), data)
    with error_console().status(f"training {setup.experiment.model.name} to measure its speed"):
        text = tomli_w.dumps(plain(measure_profile(setup, watts_idle, watts_busy)))
    if out is None:
        output_console().print(Text(text), soft_wrap=True)
    else:
        write_durably(out, text.encode())
        use = f"--set 'fleet.devices.mix={{\"{out}\" = 1}}'"
        print_line(f"written: {out}; next: sheaf run {experiment} {use}")
