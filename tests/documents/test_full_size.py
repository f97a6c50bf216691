"""The script for a GPU: its schedule, its limit, its rows."""

from __future__ import annotations

import json
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import QUICK

from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


class Machine:
    """A clock, and jobs that need a number of seconds each; a stopped job keeps its progress."""

    def __init__(self, needs: dict[str, float]) -> None:
        self.now = 0.0
        self.needs = needs
        self.lines: list[str] = []

    def attempt(self, job: Any, seconds: float) -> Any:
        from benchmarks.full_size.schedule import Outcome

        self.lines.append(f"{job.name} {seconds:.0f}")
        if job.name == "broken":
            self.now += 1
            return Outcome.FAILED
        spent = min(seconds, self.needs[job.name])
        self.now += spent
        self.needs[job.name] -= spent
        return Outcome.STOPPED if self.needs[job.name] else Outcome.FINISHED

    def run(self, seconds: float, weights: dict[str, float]) -> dict[str, str]:
        from benchmarks.full_size.jobs import Job
        from benchmarks.full_size.schedule import run_in_turn

        jobs = [Job(name, weight, load_experiment("ecavg-digits")) for name, weight in weights.items()]
        outcomes = run_in_turn(
            jobs,
            self.now + seconds,
            self.attempt,
            lambda job, left: self.lines.append(f"{job.name} skipped with {left:.0f}"),
            lambda: self.now,
        )
        return {name: outcome.value for name, outcome in outcomes.items()}


def test_unused_time_goes_to_the_next_jobs_and_then_to_the_stopped_ones() -> None:
    machine = Machine({"a": 10, "b": 70, "c": 10})
    assert machine.run(100, {"a": 1, "b": 2, "c": 2}) == dict.fromkeys("abc", "finished")
    assert machine.lines == ["a 20", "b 45", "c 45", "b 35"]


def test_a_job_that_does_not_fit_is_skipped_and_the_next_start_continues() -> None:
    machine, equal = Machine({"a": 50, "b": 30, "c": 10}), dict.fromkeys("abc", 1.0)
    assert machine.run(25, equal) == {"a": "stopped", "b": "stopped"}
    assert machine.lines == ["a 10", "b 10", "c skipped with 5"]  # 10 seconds are the least
    machine.lines.clear()
    assert machine.run(100, equal) == dict.fromkeys("abc", "finished")
    assert machine.lines == ["a 33", "b 33", "c 47", "a 37"]


def test_a_failed_job_is_not_repeated() -> None:
    machine = Machine({"b": 20})
    assert machine.run(60, {"broken": 1, "b": 1}) == {"broken": "failed", "b": "finished"}
    assert machine.lines == ["broken 30", "b 59"]


class ShortOfTime(NullObserver):
    """Lets the time run out at the average, in the middle of the run."""

    def row(self, row: Row) -> None:
        if row.stage == "average":
            signal.setitimer(signal.ITIMER_REAL, 1e-3)
            time.sleep(30)


def make_session(folder: Path, jobs: list[Any], lines: list[str], observer: NullObserver) -> Any:
    from benchmarks.full_size.session import Session

    return Session(folder, folder, jobs, "cpu", 0, "c0ffee", lines.append, lambda job: observer)


def test_a_run_out_of_time_stops_as_by_ctrl_c_and_resumes_to_the_same_result(tmp_path: Path) -> None:
    from benchmarks.full_size.jobs import Job
    from benchmarks.full_size.schedule import Outcome
    from benchmarks.sections.full_size import full_size

    before, lines = signal.getsignal(signal.SIGALRM), []
    job = Job("ECAvg 3: digits", 1.0, load_experiment("ecavg-digits", QUICK))
    missing = Job("missing", 1.0, load_experiment("ecavg-digits", ("data.name=./no-folder",)))
    jobs = [job, missing]
    session = make_session(tmp_path, jobs, lines, ShortOfTime())
    assert session.attempt(job, 60.0) is Outcome.STOPPED
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert lines[-1] == "ECAvg 3: digits: stopped after 60 s; the same command continues it"
    journal = session.folder_of(job) / "journal" / "journal.jsonl"
    answered = journal.read_text().splitlines()
    assert len(answered) > 3, "the run was stopped after its edges had trained"
    assert session.rows() == []

    session = make_session(tmp_path, jobs, lines, NullObserver())
    assert session.attempt(missing, 60.0) is Outcome.FAILED
    assert re.fullmatch(r"missing: failed, \w+: .*no-folder.* \(see .*error\.txt\)", lines[-1])
    assert session.attempt(job, 60.0) is Outcome.FINISHED
    whole = runs.run(job.experiment, out=tmp_path / "whole")
    rows = session.rows()
    stages = {(row["site"], row["stage"]): row["accuracy"] for row in rows}
    assert stages == {(row.site, row.stage): row.accuracy for row in whole.rows}
    assert {"job", "seed", "device", "seconds", "images", "commit"} <= rows[0].keys()

    seconds = json.loads((tmp_path / "seconds-0.json").read_text())
    assert session.attempt(job, 60.0) is Outcome.FINISHED  # read
    assert json.loads((tmp_path / "seconds-0.json").read_text()) == seconds
    assert session.rows() == rows
    page = full_size(rows)
    assert "| edge-1 | after update |" in page
    assert "| 0.7544 |" in page, "the paper's accuracy stands beside ours"


def test_a_users_ctrl_c_passes() -> None:
    from benchmarks.full_size.schedule import time_limit

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background process
    try:
        with pytest.raises(KeyboardInterrupt), time_limit(60.0):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("toy", [False, True])
def test_jobs(toy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.full_size.jobs import STAND_IN, all_jobs

    monkeypatch.setenv("SHEAF_DATA", str(tmp_path))
    assert [job.experiment.data.name for job in all_jobs("cpu", 1, toy)].count("cifar100") == 1
    (tmp_path / STAND_IN).mkdir()
    jobs = all_jobs("cuda", 1, toy)
    names = [job.name for job in jobs]
    assert sum(STAND_IN in name and "CIFAR-100" in name for name in names) == 1
    folders = {make_session(tmp_path, [], [], NullObserver()).folder_of(job) for job in jobs}
    assert len(folders) == len(jobs)
    for number, job in enumerate(jobs):
        assert job.experiment.seed == 1
        assert job.experiment.fleet.device == "cuda"
        assert job.experiment.data.limit == (200 if toy else None)
        assert not job.central or job.central in names[:number]


def test_a_rivals_job_has_the_row_of_its_protocol_and_method(tmp_path: Path) -> None:
    from benchmarks.full_size.jobs import all_jobs
    from benchmarks.full_size.schedule import Outcome
    from benchmarks.rivals import PROTOCOLS
    from benchmarks.sections.full_size import full_size

    jobs = {job.name: job for job in all_jobs("cpu", 1, toy=True) if job.rival}
    expected = {(protocol, method) for protocol, (methods, _) in PROTOCOLS.items() for method in methods}
    assert {job.rival for job in jobs.values()} == expected
    job = jobs["Rivals A: fedavg"]
    digits = replace(job.experiment.data, name="digits", channels=3)  # present on every machine
    job = replace(job, experiment=replace(job.experiment, data=digits))
    session = make_session(tmp_path, [job], [], NullObserver())
    assert session.attempt(job, 60.0) is Outcome.FINISHED
    (row,) = session.rows()
    assert (row["protocol"], row["method"]) == job.rival
    assert (row["job"], row["seed"], row["device"][:3]) == (job.name, 1, "cpu")
    assert row["images_sent"] == 0
    assert row["cloud"] == row["curve"][-1]
    assert "| A | fedavg |" in full_size([row])


def test_every_test_that_needs_cuda_is_run() -> None:
    from benchmarks.full_size.cuda_tests import TESTS

    asks = re.compile(r"torch\.cuda\.is_available\(\)")
    files = [file for file in (ROOT / "tests").rglob("*.py") if asks.search(file.read_text(encoding="utf-8"))]
    assert {str(file.relative_to(ROOT)) for file in files} == set(TESTS)


def test_counts_of_a_report(tmp_path: Path) -> None:
    from benchmarks.full_size.cuda_tests import counts

    report = tmp_path / "tests.xml"
    cases = {"a": "", "b": "<failure/>", "c": "<skipped/>"}
    text = "".join(f'<testcase name="{name}">{content}</testcase>' for name, content in cases.items())
    report.write_text(f"<testsuites><testsuite>{text}</testsuite></testsuites>")
    assert counts(report) == {"passed": 1, "failed": 1, "skipped": 1, "failures": ["b"]}
    report.write_text("<testsuites/>")
    with pytest.raises(RuntimeError, match="no test"):
        counts(report)
