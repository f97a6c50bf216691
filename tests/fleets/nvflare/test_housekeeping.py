"""The files of FLARE's processes stay bounded."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from sheaf.fleets.nvflare import housekeeping
from sheaf.fleets.nvflare.housekeeping import Housekeeping


def test_logs_and_folders_of_jobs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "LARGEST", 100)
    jobs = [tmp_path / str(uuid.UUID(int=number)) for number in range(1, 6)]
    for age, job in enumerate(reversed(jobs)):
        job.mkdir()
        (job / "log.txt").write_text("x")
        os.utime(job, (1000 - age, 1000 - age))
    (tmp_path / "startup").mkdir()
    with (tmp_path / "audit.log").open("a") as log:  # as FLARE does
        log.write("old\n" * 50)
        log.flush()
        Housekeeping(tmp_path).tick()
        log.write("new\n")
    assert (tmp_path / "audit.log").read_text() == "new\n"
    assert (tmp_path / "audit.log.1").read_text() == "old\n" * 50
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"startup", *(job.name for job in jobs[2:])}


def test_the_work_is_done_once_in_a_period(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(housekeeping, "limit_logs", calls.append)
    keeper = Housekeeping(tmp_path)
    keeper.tick()
    keeper.tick()
    assert calls == [tmp_path]
