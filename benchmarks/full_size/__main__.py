"""The command ``python -m benchmarks.full_size``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console

from benchmarks.full_size.jobs import Job, all_jobs
from benchmarks.full_size.schedule import Outcome, run_in_turn
from benchmarks.full_size.session import Session
from benchmarks.results import FOLDER
from benchmarks.sections.full_size import lines_of_jobs
from sheaf.core.errors import SheafError
from sheaf.report.live import Live
from sheaf.training.preparation import pick_device

TESTS_AT_MOST = 0.2
"""Fraction of the time that the tests may use."""


def refuse(line: str) -> NoReturn:
    """Print an error of one line, and exit with code 2."""
    typer.echo(f"error: {line}", err=True)
    raise typer.Exit(2)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the runs; the same folder resumes them.")],
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where everything computes.")] = "cuda",
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for tests and jobs together.")] = 8.0,
    toy: Annotated[
        bool, typer.Option("--toy", help="A few images and one epoch; rows into FOLDER only.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Jobs with this in their name.")] = None,
    tests: Annotated[bool, typer.Option(help="First run the tests that need CUDA.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every job.")] = 0,
    commit: Annotated[str | None, typer.Option(help="Commit of a checkout without git.")] = None,
) -> None:
    """Run the tests and jobs that fit into the minutes."""
    end, console = time.monotonic() + 60 * minutes, Console(width=110, highlight=False)
    if folder.exists() and not folder.is_dir():
        refuse(f"{folder} is a file; name a folder for the runs")
    try:
        pick_device(device)
    except SheafError as error:
        refuse(f"--device {device}: {error}")
    jobs = all_jobs(device, seed, toy)
    chosen = [job for job in jobs if not only or any(part in job.name for part in only)]
    if not chosen:
        refuse(f"--only {' '.join(only or ())}: no job; the jobs are: {'; '.join(job.name for job in jobs)}")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def report(line: str) -> None:
        seconds = 60 * minutes - (end - time.monotonic())
        console.print(f"{seconds:5.0f} s  {line}", soft_wrap=True, markup=False)

    session = Session(
        folder,
        folder if toy else FOLDER,
        jobs,
        device,
        seed,
        commit,
        report=report,
        observer=lambda job: Live(console, job.name, rows=False),
    )
    passed = session.run_tests(60 * minutes * TESTS_AT_MOST) if tests else True

    def skipped(job: Job, seconds: float) -> None:
        report(f"{job.name}: skipped, does not fit into the {seconds:.0f} s left")

    outcomes = run_in_turn(chosen, end, session.attempt, skipped)
    for line in lines_of_jobs(session.rows()):
        console.print(line, soft_wrap=True)
    open_ones = [job.name for job in chosen if outcomes.get(job.name) is not Outcome.FINISHED]
    if open_ones:
        report(f"not finished: {'; '.join(open_ones)}; the same command continues")
    if not passed or Outcome.FAILED in outcomes.values():
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
