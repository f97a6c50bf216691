"""A run killed with SIGKILL, again and again, ends with the bits of one that was never stopped."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import command

from sheaf.runtime.result import Result

KILLS = 6
PLAIN = ("method.rounds=3", "data.limit=600")
CLOCKED = (
    *PLAIN,
    "fleet.devices.mix={'raspberry-pi-4+lte' = 1}",
    "fleet.devices.on=1",
    "fleet.devices.off=2",
    "fleet.deadline=0.3",
    "fleet.quorum=0.5",
)
"""In virtual time, with devices that leave and return: 8 of its 29 calls lack a device."""


@pytest.mark.parametrize("changes", [PLAIN, CLOCKED], ids=["plain", "clocked"])
def test_a_run_that_is_killed_again_and_again(
    changes: tuple[str, ...], tmp_path: Path, fork_server: Path
) -> None:
    """One process is the installed program; the others are forks of one server, for speed."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    sheaf = fork_server / "sheaf"
    settings = [word for change in changes for word in ("--set", change)]
    subprocess.run([sheaf, "run", "ecavg-digits", *settings, "--out", whole], check=True, capture_output=True)
    expected = Result.read(whole)
    assert (expected.time is not None) == (changes == CLOCKED)
    assert bool(expected.refused) == (changes == CLOCKED)
    moments = random.Random(2310_03823)
    killed = 0
    for attempt in range(3 * KILLS):
        if killed == KILLS:
            break
        if (broken / "result.json").exists():  # it ended before the kill: prove it, and break another
            assert_same_run(broken, whole)
            shutil.rmtree(broken)
        start = (
            ["--resume", broken]
            if (broken / "experiment.toml").exists()
            else ["ecavg-digits", *settings, "--out", broken]
        )
        program = command() if attempt == 3 and changes == PLAIN else sheaf
        process = subprocess.Popen([program, "run", *start], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for_growth(process, broken / "journal" / "journal.jsonl")
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        said = process.stdout.read()  # to its end: a fork ends soon after its client
        assert b"Traceback" not in said, f"attempt {attempt}"
        process.stdout.close()
    assert killed == KILLS
    subprocess.run([sheaf, "run", "--resume", broken], check=True, capture_output=True)
    assert_same_run(broken, whole)


def assert_same_run(one: Path, other: Path) -> None:
    """Compare weights, measurements, absences and virtual times."""
    found, expected = Result.read(one), Result.read(other)
    assert found.rows == expected.rows
    assert found.refused == expected.refused
    assert found.time == expected.time
    assert found.weights == expected.weights
    assert "cloud" in expected.weights
    for file in expected.weights.values():
        assert (one / file).read_bytes() == (other / file).read_bytes()


def wait_for_growth(process: subprocess.Popen[bytes], journal: Path) -> None:
    """Until the process has journaled something of its own, or is done."""
    before = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None and (not journal.exists() or journal.stat().st_size == before):
        time.sleep(0.002)


def heed_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_a_folder_that_resumes_and_says_how(tmp_path: Path, fork_server: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [
            command(),
            "run",
            "ecavg-digits",
            "--set",
            "data.limit=200",
            "--set",
            "method.pretrain.epochs=400",
            "--out",
            folder,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    wait_for_growth(process, folder / "journal" / "journal.jsonl")  # type: ignore[arg-type]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"sheaf run --resume {folder}" in said
    assert "Traceback" not in said
    subprocess.run([fork_server / "sheaf", "run", "--resume", folder], check=True, capture_output=True)
    assert (folder / "result.json").exists()
