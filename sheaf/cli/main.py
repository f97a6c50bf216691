"""The command line: every command of ``sheaf``."""

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
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from sheaf.cli import fleet
from sheaf.cli.console import console as terminal
from sheaf.cli.console import errors, resumable, title, unchanged
from sheaf.cli.console import show as show_run
from sheaf.cli.options import Changes, Data, Out, Resume, Source
from sheaf.core.errors import SheafError

if TYPE_CHECKING:
    from sheaf.experiments.config import Experiment
    from sheaf.runtime.observer import Observer

app = typer.Typer(
    help="Train one model across edge devices and the cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(fleet.cloud, name="cloud")
app.add_typer(fleet.edge, name="edge")

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but the folder with the results.")
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print what happens as JSON lines (docs/experiments.md), and nothing else."),
]
TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard event files into the run's folder.")
]
MLflowOption = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="Also write to this MLflow server or store.")
]


@app.command(epilog="Example: sheaf run ecavg-mnist --data ~/data --set method.pretrain.epochs=3")
def run(
    experiment: Source = "ecavg-digits",
    changes: Changes = None,
    data: Data = None,
    out: Out = None,
    resume: Resume = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show settings, split and cost; train and write nothing."),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    tensorboard: TensorBoardOption = False,
    mlflow: MLflowOption = None,
) -> None:
    """Run an experiment: trains, prints the tables, and leaves a folder with everything in it."""
    from sheaf.experiments import run as runs
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.setup import prepare
    from sheaf.report.terminal_tables import cost_table, split_table

    console = terminal()
    observed_by = _observers(console, quiet, as_json, tensorboard, mlflow)
    if resume is not None:
        unchanged({"--set": changes, "--out": out, "--dry-run": dry_run})
        folder = resume
        with resumable(folder):
            runs.resume(folder, data=data, observer=observed_by(f"resuming {folder}", folder))
    elif dry_run:
        if quiet or as_json or tensorboard or mlflow:
            raise SheafError(
                "--dry-run runs nothing that --quiet, --json, --tensorboard or --mlflow could tell"
            )
        prepared = prepare(load_experiment(experiment, changes or ()), data)
        console.print(Syntax(prepared.experiment.toml(), "toml", background_color="default", word_wrap=True))
        for note in prepared.notes:
            console.print(f"note: {note}", highlight=False)
        console.print(split_table(prepared.split, prepared.dataset.classes))
        console.print(cost_table(runs.rehearse(prepared).sites, measured=False))
        return
    else:
        settings = load_experiment(experiment, changes or ())
        folder = out or runs.new_folder(experiment)
        with resumable(folder):
            runs.run(
                settings, data=data, out=folder, observer=observed_by(title(experiment, settings), folder)
            )
    if quiet:
        print(folder)
    elif as_json:
        _json_line("finished", folder, result=str(folder / "result.json"))
    else:
        show_run(console, folder)


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
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    tensorboard: TensorBoardOption = False,
    mlflow: MLflowOption = None,
) -> None:
    """Run several methods on the same data, seeds and total of training, and print one table."""
    from sheaf.core.atomic_io import write_durably
    from sheaf.experiments import run as runs
    from sheaf.experiments.compare import compare as compare_methods
    from sheaf.experiments.config import load_experiment
    from sheaf.report.terminal_tables import comparison_table

    console = terminal()
    settings = load_experiment(experiment, changes or ())
    folder = out or runs.new_folder(f"compare-{Path(experiment).stem}")
    names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not names:
        raise SheafError("--methods names no method; such as: --methods ecavg,fedavg")
    swept = None if sweep is None else _swept(experiment, changes or (), sweep)
    observed_by = _observers(console, quiet, as_json, tensorboard, mlflow, rows=False)
    summaries = compare_methods(settings, names, seeds, folder, data, observed_by, swept)
    plain = [asdict(summary) for summary in summaries]
    write_durably(folder / "compare.json", json.dumps(plain, indent=1).encode())
    if quiet:
        print(folder)
        return
    if as_json:
        _json_line("compared", folder, methods=plain)
        return
    console.print(comparison_table(summaries))
    console.print(f"folder: {folder}", highlight=False, soft_wrap=True)


def _swept(source: str, changes: Iterable[str], sweep: str) -> dict[str, Experiment]:
    """What is said of each value -> the experiment with it."""
    from sheaf.experiments.config import load_experiment

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
    from sheaf.core.atomic_io import write_durably
    from sheaf.experiments.config import load_experiment
    from sheaf.experiments.plan import plan as plan_cuts
    from sheaf.report.terminal_tables import plan_table

    console = terminal()
    planned, rows = plan_cuts(load_experiment(experiment, changes or ()), data)
    console.print(plan_table(rows))
    if out is None:
        console.print(planned.toml(), highlight=False, markup=False)
    else:
        write_durably(out, planned.toml().encode())
        console.print(f"written: {out}; next: sheaf run {out}", highlight=False, soft_wrap=True)


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
    from sheaf.core import registry
    from sheaf.core.errors import UnknownNameError
    from sheaf.experiments.config import shipped
    from sheaf.models.build import model_names

    kinds: dict[str, Callable[[], dict[str, str]]] = {"experiments": shipped}
    kinds |= {name: partial(registry.describe, name) for name in registry.KINDS}
    kinds["models"] = model_names
    if kind is not None and kind not in kinds:
        raise UnknownNameError("list", kind, kinds)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name in [kind] if kind else kinds:
        table.add_row(f"[bold]{name}[/bold]", "")
        for thing, line in kinds[name]().items():
            table.add_row(f"  {thing}", line)
    terminal().print(table, highlight=False)


@app.command(epilog="Example: sheaf show runs/ecavg-digits-20260101-120000")
def show(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Print the tables of a finished run again."""
    show_run(terminal(), folder)


@app.command(epilog="Example: sheaf export runs/ecavg-digits-20260101-120000 --site edge-1 --to onnx")
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    site: Annotated[str, typer.Option(help="Whose model: an edge, or cloud.")] = "cloud",
    to: Annotated[str, typer.Option(help="onnx, pt2 (torch.export) or safetensors.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file [default: SITE.FORMAT here].")] = None,
    data: Data = None,
) -> None:
    """Write a run's model as one file, checked against PyTorch, with class names and normalisation in it."""
    from sheaf.export.export import export as export_model

    done = export_model(folder, site, to, out, data)
    say = partial(terminal().print, highlight=False, markup=False, soft_wrap=True)
    shown = ", ".join(done.classes[:10]) + (", …" if len(done.classes) > 10 else "")
    say(f"{len(done.classes)} classes: {shown}; {done.parameters:,} numbers")
    say(f"compared with PyTorch on {done.examples} {done.checked_on}:")
    say(f"  {done.agreed} get the same class; logits differ by {done.difference:.1e} at most")
    say(f"written: {done.file}; next: sheaf predict {done.file} FILE…")


@app.command(epilog="Example: sheaf predict edge-1.onnx photos/*.jpg")
def predict(
    model: Annotated[
        Path, typer.Argument(help="An exported .onnx, .pt2 or .safetensors, or a run's folder.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Images, or sounds (WAV, FLAC).")],
    site: Annotated[str, typer.Option(help="Of a run's folder: whose model.")] = "cloud",
    trust: Annotated[
        bool, typer.Option("--trust", help="Let code run that MODEL names or brings: your own model, a .pt2.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Classify files with a model; the model's file is all that it takes."""
    from sheaf.export.predict import open_model
    from sheaf.export.predict import predict as classify

    opened = open_model(model, site, trust)
    predictions = classify(opened, files)
    if as_json:
        for prediction in predictions:
            print(json.dumps(asdict(prediction)))
        return
    table = Table("file", "class", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ["probability", *(["none of these"] if opened.card.other else [])]:
        table.add_column(heading, justify="right")
    for found in predictions:
        shares = [found.probability, *([found.none_of_these] if found.none_of_these is not None else [])]
        table.add_row(escape(found.file), escape(found.label), *(f"{share:.4f}" for share in shares))
    terminal().print(table, highlight=False)


@app.command(epilog="Example: sheaf report runs/ecavg-digits-20260101-120000")
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs, or a folder that compare left.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file [default: report.html in the folder, if it is one].")
    ] = None,
) -> None:
    """Write one HTML page of a run, or of several beside each other, with its pictures as PNG and SVG."""
    from sheaf.report.page import write_report

    place = write_report(folders, out)
    terminal().print(f"report: {place}", highlight=False, soft_wrap=True)


def _observers(
    console: Console, quiet: bool, as_json: bool, tensorboard: bool, mlflow: str | None, rows: bool = True
) -> Callable[[str, Path], Observer]:
    """Makes what shows a run and keeps a record of it, from a line that says which and its folder."""
    from sheaf.report.live import Live
    from sheaf.report.trackers.json_lines import JsonLines
    from sheaf.report.trackers.mlflow import MLflow
    from sheaf.report.trackers.tensorboard import TensorBoard
    from sheaf.runtime.observer import NullObserver, Observers

    if quiet and as_json:
        raise SheafError("--quiet and --json exclude each other")

    def watch(title: str, folder: Path) -> Observer:
        observers: list[Observer] = [MLflow(mlflow, folder)] if mlflow else []
        if tensorboard:
            observers.append(TensorBoard(folder))
        shown = (
            NullObserver()
            if quiet
            else JsonLines(sys.stdout, folder)
            if as_json
            else Live(console, title, rows)
        )
        return Observers([*observers, shown])

    return watch


def _json_line(event: str, folder: Path, **said: object) -> None:
    from sheaf.report.trackers.json_lines import JsonLines

    JsonLines(sys.stdout, folder).write(event, **said)


def main() -> None:
    """The entry point: a user's mistake is one line and exit code 2, never a traceback."""
    sys.path.insert(0, os.getcwd())  # a user's own package.module:object lies where the command is given
    try:
        app()
    except SheafError as error:
        errors().print(f"sheaf: {error}")
        sys.exit(2)
