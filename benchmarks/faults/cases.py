"""Faults of processes, machines and disks during a run."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from typing import Any

import psutil

from benchmarks.faults.stage import Stage, Trial


def undisturbed(stage: Stage) -> dict[str, Any]:
    """No fault."""
    trial = Trial(stage, "undisturbed")
    trial.end()
    return trial.outcome()


def absent_at_start(stage: Stage) -> dict[str, Any]:
    """edge-3 is absent at the start and joins during the first training."""
    stage.kill(stage.edges["edge-3"])
    time.sleep(10)
    trial = Trial(stage, "absent")
    trial.wait_for_call(1)
    stage.mend()
    trial.end()
    return trial.outcome()


def killed(stage: Stage) -> dict[str, Any]:
    """edge-3 loses power during training and has it again after three seconds."""
    trial = Trial(stage, "killed")
    trial.wait_for_call(1)
    stage.kill(stage.edges["edge-3"])
    time.sleep(3)
    stage.mend()
    trial.end()
    return trial.outcome()


def job_killed(stage: Stage) -> dict[str, Any]:
    """The training process of edge-3 is killed; its supervisor is not."""
    trial = Trial(stage, "job-killed")
    trial.wait_for_call(1)
    stage.job_of(stage.edges["edge-3"]).kill()
    trial.end()
    return trial.outcome()


def paused(stage: Stage) -> dict[str, Any]:
    """edge-3 is suspended for six seconds during training."""
    trial = Trial(stage, "paused")
    trial.wait_for_call(1)
    job = stage.job_of(stage.edges["edge-3"])
    job.suspend()
    time.sleep(6)
    job.resume()
    trial.end()
    return trial.outcome()


def stopped(stage: Stage) -> dict[str, Any]:
    """edge-3 is suspended for good, with its connection open."""
    trial = Trial(stage, "stopped")
    trial.wait_for_call(1)
    job, waiting = stage.job_of(stage.edges["edge-3"]), stage.edges["edge-3"]
    job.suspend()
    for below in psutil.Process(waiting.pid).children(recursive=True):
        below.suspend()
    trial.end()
    outcome = trial.outcome()
    stage.kill(waiting)
    return outcome


def slow(stage: Stage) -> dict[str, Any]:
    """edge-3 computes at a twentieth of its speed; a call may take 15 s."""
    trial = Trial(stage, "slow", ("fleet.deadline=15.0",))
    trial.wait_for_call(1)
    job, over = stage.job_of(stage.edges["edge-3"]), threading.Event()

    def drag() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not over.is_set():
                job.suspend()
                time.sleep(0.95)
                job.resume()
                time.sleep(0.05)

    thread = threading.Thread(target=drag)
    thread.start()
    trial.wait_for_call(3)
    over.set()
    thread.join()
    trial.end()
    return trial.outcome()


def out_of_disk(stage: Stage) -> dict[str, Any]:
    """edge-3 can write no file of more than 100 bytes from its first training on."""
    trial = Trial(stage, "disk")
    trial.wait_for_call(1)
    job = stage.job_of(stage.edges["edge-3"])
    resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (100, 100))
    trial.end()
    outcome = trial.outcome()
    stage.kill(stage.edges["edge-3"])
    return outcome


def run_killed(stage: Stage) -> dict[str, Any]:
    """The run's own process on the cloud is killed in mid-training; then --resume."""
    trial = Trial(stage, "run-killed")
    trial.wait_for_call(1)
    trial.process.kill()
    trial.end()
    trial.resume()
    return trial.outcome()


def server_killed(stage: Stage) -> dict[str, Any]:
    """The cloud's server and all below it are killed in mid-training; then start and --resume."""
    trial = Trial(stage, "server-killed")
    trial.wait_for_call(1)
    stage.kill(stage.cloud)
    output = trial.end()
    assert trial.process.returncode == 2, output
    assert "sheaf cloud start" in output, output
    stage.mend()
    trial.resume()
    return trial.outcome()


def relay_killed(stage: Stage) -> dict[str, Any]:
    """The job's process on the cloud is killed in mid-training."""
    trial = Trial(stage, "relay-killed")
    trial.wait_for_call(1)
    stage.job_of(stage.cloud).kill()
    trial.end()
    return trial.outcome()
