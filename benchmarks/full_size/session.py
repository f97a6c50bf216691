"""One start of the script: its attempts at jobs, their seconds, and the file of rows."""

from __future__ import annotations

import json
import re
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_size.cuda_tests import run_tests
from benchmarks.full_size.jobs import Job
from benchmarks.full_size.rows import rows_of
from benchmarks.full_size.schedule import Outcome, TimeUp, time_limit
from benchmarks.results import publish
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.provenance import provenance
from sheaf.runtime.observer import Observer
from sheaf.runtime.result import Result

TESTS = "tests that need CUDA"
NAME = "full_size"


@dataclass
class Session:
    """Runs jobs in their folders and publishes the rows of the finished ones.

    Attributes:
        folder: of the run folders, of the tests' report and of ``seconds.json``.
        published: the folder of ``full_size.json``.
        jobs: all jobs whose rows are published once they have finished.
        device: ``cpu`` or ``cuda``.
        seed: of the jobs.
        commit: of the code, where git cannot name it.
        report: prints a line.
        observer: returns the observer of a job.
        tests: the row of the tests, if they ran.
    """

    folder: Path
    published: Path
    jobs: Sequence[Job]
    device: str
    seed: int
    commit: str | None
    report: Callable[[str], None]
    observer: Callable[[Job], Observer]
    tests: dict[str, Any] = field(default_factory=dict)

    def attempt(self, job: Job, seconds: float) -> Outcome:
        """Run, resume or read a job, for at most that number of seconds, and publish its rows.

        An error is printed in one line, with the file of its traceback: it ends the job, not the script.
        """
        folder = self.folder_of(job)
        was_finished = (folder / "result.json").exists()
        if folder.exists() and not (folder / "experiment.toml").exists():
            shutil.rmtree(folder)  # stopped before it had begun
        began, outcome = time.perf_counter(), Outcome.FINISHED
        self.report(f"{job.name}: {'read' if was_finished else f'at most {seconds:.0f} s'}")
        try:
            with time_limit(seconds):
                run_or_resume(job.experiment, folder, observer=self.observer(job))
        except TimeUp:
            outcome = Outcome.STOPPED
        except Exception as error:
            outcome, file = Outcome.FAILED, folder.with_suffix(".error.txt")
            file.write_text(traceback.format_exc())
            first = (str(error).splitlines() or [""])[0]
            self.report(f"{job.name}: failed, {type(error).__name__}: {first} (see {file})")
        if not was_finished:
            self._add_seconds(job.name, time.perf_counter() - began)
        if outcome is Outcome.STOPPED:
            self.report(f"{job.name}: stopped after {seconds:.0f} s; the same command continues it")
        if outcome is Outcome.FINISHED:
            self.publish()
        return outcome

    def run_tests(self, seconds: float) -> bool:
        """Run the tests that need CUDA, publish their counts, and return whether none failed."""
        self.report(f"{TESTS}: at most {seconds:.0f} s")
        began = time.perf_counter()
        try:
            counted = run_tests(self.folder / "tests.xml", seconds)
        except RuntimeError as error:
            self.report(f"{TESTS}: failed, {error}")
            return False
        origin = provenance({}, self.seed, {}, torch.device(self.device))
        self.tests = {
            "job": TESTS,
            "seed": self.seed,
            "device": origin["hardware"]["device"],
            "seconds": time.perf_counter() - began,
            "commit": origin["commit"] or self.commit,
        } | counted
        self.publish()
        self.report("{}: {passed} passed, {failed} failed, {skipped} skipped".format(TESTS, **counted))
        return not counted["failed"]

    def publish(self) -> None:
        """Write ``full_size.json``: the rows of all finished jobs, and the file's other rows."""
        results = {job.name: Result.read(self.folder_of(job)) for job in self.jobs if self.finished(job)}
        rows = [self.tests] if self.tests else []
        for job in self.jobs:
            if job.name in results:
                rows += self._rows(job, results)
        settings = {name: result.provenance["settings"] for name, result in results.items()}
        data: dict[str, str] = {}
        for result in results.values():
            data |= result.provenance["data"]
        file = self.published / f"{NAME}.json"
        if file.exists():
            before = json.loads(file.read_text())
            new = {key_of(row) for row in rows}
            rows = [row for row in before["rows"] if key_of(row) not in new] + rows
            settings = before["provenance"]["settings"] | settings
            data = before["provenance"]["data"] | data
        publish(
            NAME, rows, settings, self.seed, data, (), self.device, folder=self.published, commit=self.commit
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the published rows."""
        file = self.published / f"{NAME}.json"
        rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"] if file.exists() else []
        return rows

    def finished(self, job: Job) -> bool:
        """Return whether the job has a result."""
        return (self.folder_of(job) / "result.json").exists()

    def folder_of(self, job: Job) -> Path:
        """Return the run folder of a job."""
        name = re.sub("[^A-Za-z0-9@-]+", "_", job.name)
        return self.folder / f"{name}-{job.experiment.seed}"

    def _rows(self, job: Job, results: dict[str, Result]) -> list[dict[str, Any]]:
        origin = results[job.name].provenance
        common = {
            "job": job.name,
            "seed": job.experiment.seed,
            "device": origin["hardware"]["device"],
            "seconds": self._seconds().get(job.name),
            "commit": origin["commit"] or self.commit,
        }
        return rows_of(job, results[job.name], results.get(job.central), common)

    def _seconds(self) -> dict[str, float]:
        file = self.folder / f"seconds-{self.seed}.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _add_seconds(self, name: str, seconds: float) -> None:
        spent = self._seconds()
        spent[name] = spent.get(name, 0.0) + seconds
        (self.folder / f"seconds-{self.seed}.json").write_text(json.dumps(spent))


def key_of(row: dict[str, Any]) -> tuple[str, int, str]:
    """Return the job, seed and device of a row: a new run replaces all rows of one."""
    return row["job"], row["seed"], row["device"]
