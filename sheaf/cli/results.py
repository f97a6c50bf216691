"""The commands that use the results of runs: ``report``, ``export`` and ``predict``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import output_console, print_line
from sheaf.cli.options import Data, Run
from sheaf.core.optional_imports import needs

if TYPE_CHECKING:
    from sheaf.export.model_file import LoadedModel

commands = typer.Typer(rich_markup_mode=None)


@commands.command(epilog="Example: sheaf report runs/ecavg-digits-mlp-20260101-120000")
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs, or a folder of sheaf compare.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file [default: report.html in the folder, if it is one].")
    ] = None,
) -> None:
    """Write an HTML report on a run, or on several in comparison.

    The pictures are also written as PNG and SVG, to a folder next to the HTML file.
    """
    with needs("workstation"):
        from sheaf.report.page import write_report

    print_line(f"report: {write_report(folders, out)}")


@commands.command(epilog="Example: sheaf export runs/ecavg-digits-mlp-20260101-120000 --site edge-1")
def export(
    folder: Run,
    site: Annotated[str, typer.Option(help="The site of the model: an edge, or cloud.")] = "cloud",
    to: Annotated[str, typer.Option(help="onnx, pt2 (torch.export) or safetensors.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file [default: SITE.FORMAT in the current folder].")
    ] = None,
    data: Data = None,
) -> None:
    """Export a run's model to one file.

    The file contains the class names and the normalisation of inputs. Its logits are compared with PyTorch's.
    """
    from sheaf.experiments.export_run import export as export_model

    exported = export_model(folder, site, to, out, data)
    names = ", ".join(exported.classes[:10]) + ", …" * (len(exported.classes) > 10)
    print_line(f"{len(exported.classes)} classes: {names}; {exported.parameters:,} parameters")
    print_line(f"compared with PyTorch on {exported.examples} {exported.checked_on}:")
    print_line(
        f"  same class for {exported.agreed}; largest difference of a logit: {exported.difference:.1e}"
    )
    print_line(f"  {exported.measured}")
    print_line(f"written: {exported.file}; next: sheaf predict {exported.file} FILE…")


@commands.command(epilog="Example: sheaf predict edge-1.onnx photos/*.jpg")
def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="An exported .onnx, .pt2 or .safetensors file, or a run's folder."
        ),
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Images, or sounds (WAV, MP3, …).")],
    site: Annotated[str, typer.Option(help="In a run's folder: the site of the model.")] = "cloud",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Allow code from MODEL to run: needed for a .pt2, and for a model of your own."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
) -> None:
    """Classify images or sounds with an exported model."""
    from sheaf.experiments.run_check import open_model

    print_predictions(open_model(model, site, trust), files, as_json)


def print_predictions(loaded: LoadedModel, files: Sequence[Path], as_json: bool) -> None:
    """Classify files and print a table, or a JSON object per line."""
    from sheaf.export.predict import predict as classify

    predictions = classify(loaded, files)
    if as_json:
        for prediction in predictions:
            print(json.dumps(asdict(prediction)))
        return
    table = Table("file", "class", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("probability", justify="right")
    if loaded.card.other:
        table.add_column("none of these", justify="right")
    for prediction in predictions:
        probabilities = [prediction.probability]
        if prediction.none_of_these is not None:
            probabilities.append(prediction.none_of_these)
        cells = (f"{probability:.4f}" for probability in probabilities)
        table.add_row(Text(prediction.file), Text(prediction.label), *cells)
    output_console().print(table, highlight=False)
