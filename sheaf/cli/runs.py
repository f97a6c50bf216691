"""The commands on finished runs: ``runs`` lists them, ``show`` prints one or a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sheaf.cli.console import output_console, print_line, print_result
from sheaf.cli.options import Every
from sheaf.core.errors import RunFolderError

if TYPE_CHECKING:
    from sheaf.experiments.compare import Summary

commands = typer.Typer(rich_markup_mode=None)

RUNS = Path("runs")
"""The directory in which commands look for runs (``run_folder.RUNS``, without its imports)."""

FILES = ("result.json", "compare.json", "experiment.toml")
"""Files that make a folder a finished run, a comparison, or an unfinished run; in this order."""


@dataclass(frozen=True)
class Listed:
    """A folder of ``sheaf runs``.

    Attributes:
        folder: the folder.
        file: the one of ``FILES`` that it has.
        changed: when that file was written, in seconds since 1970.
    """

    folder: Path
    file: str
    changed: float


@commands.command(epilog="Example: sheaf runs")
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of the runs.")] = RUNS,
) -> None:
    """List the runs in a folder with their verdicts, the newest first."""
    listed = find_runs(folder)
    if not listed:
        print_line(f"{folder} holds no run; start one with: sheaf run")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("folder", overflow="fold")
    table.add_column("run", ratio=2)
    table.add_column("verdict", ratio=3)
    for each in listed:
        table.add_row(*map(Text, (str(each.folder), *_cells(each))))
    output_console().print(table, highlight=False)


@commands.command(epilog="Example: sheaf show first")
def show(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="The folder of a run or of a comparison [default: the newest in runs/]."
        ),
    ] = None,
    every: Every = False,
) -> None:
    """Print the verdict on a finished run and its tables, or those of a comparison."""
    folder = folder or newest()
    console = output_console()
    if (folder / "compare.json").exists() and not (folder / "result.json").exists():
        from sheaf.report.terminal_comparison import comparison_table

        console.print(comparison_table(_summaries(folder)))
        console.print(Text(f"folder: {folder}"), soft_wrap=True)
    else:
        print_result(console, folder, every)


def newest() -> Path:
    """Return the folder of the newest finished run or comparison in ``runs/``.

    Raises:
        RunFolderError: ``runs/`` has no finished run.
    """
    finished = (each.folder for each in find_runs(RUNS) if each.file != "experiment.toml")
    if (folder := next(finished, None)) is None:
        raise RunFolderError(
            f"{RUNS}/ holds no finished run; name a run's folder, or start one with: sheaf run"
        )
    return folder


def find_runs(folder: Path) -> list[Listed]:
    """Return the runs and comparisons in a folder, the newest first.

    Raises:
        RunFolderError: the folder cannot be read.
    """
    listed = []
    try:
        for inner in folder.iterdir() if folder.exists() else ():
            file = next((name for name in FILES if (inner / name).is_file()), None)
            if file is not None:
                listed.append(Listed(inner, file, (inner / file).stat().st_mtime))
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted(listed, key=lambda each: (-each.changed, each.folder))


def _cells(listed: Listed) -> tuple[str, str]:
    """Return the name of a run and its verdict."""
    from sheaf.experiments.config import load_experiment
    from sheaf.report.run_name import experiment_name, run_name
    from sheaf.report.verdict import verdict
    from sheaf.runtime.result import Result

    try:
        if listed.file == "compare.json":
            summaries = _summaries(listed.folder)
            best = max(summaries, key=lambda each: sum(each.mean_edge) / len(each.mean_edge))
            mean = sum(best.mean_edge) / len(best.mean_edge)
            methods = ", ".join(summary.method for summary in summaries)
            return f"comparison of {methods}", f"best mean edge: {best.method} with {mean:.4f}"
        if listed.file == "result.json":
            result = Result.read(listed.folder)
            return run_name(result), verdict(result).short
        name = experiment_name(load_experiment(listed.folder / listed.file))
        return name, f"unfinished; continue with: sheaf run --resume {listed.folder}"
    except Exception as error:  # a damaged folder must not hide the others
        return "damaged", str(error).partition("\n")[0]


def _summaries(folder: Path) -> list[Summary]:
    """Read ``compare.json``.

    Raises:
        RunFolderError: it cannot be read.
    """
    from pydantic import TypeAdapter, ValidationError

    from sheaf.experiments.compare import Summary

    path = folder / "compare.json"
    try:
        return TypeAdapter(list[Summary]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunFolderError(
            f"{path} is not a comparison of this version of sheaf; repeat sheaf compare with --out {folder}"
        ) from error
