"""Runs of several processes: killed and resumed, started by torchrun, refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import one_line
from torch import Tensor

from sheaf.core.errors import FleetError, SettingError
from sheaf.experiments import processes as run_processes
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.processes.cloud_training import CloudProcesses
from sheaf.fleets.processes.group import Sizes
from sheaf.training.losses.cross_entropy import CrossEntropy

EIGHT_EDGES = ("data.limit=240", "data.limit_test=50", "partition=iid", "partition.edges=8")
TWO = Sizes(2, 2)


@pytest.fixture(scope="module", autouse=True)
def forked(fork_server: Path) -> Iterator[None]:
    """Start processes as forks of one that has imported torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(fork_server / "python"))
        yield


def test_a_run_whose_process_is_killed_in_a_step_resumes_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (*EIGHT_EDGES, "method.pretrain.epochs=1", "method.retrain.epochs=1", "cloud.processes=2")
    experiment = load_experiment("ecavg-digits", changes)
    whole = runs.run(experiment, out=tmp_path / "whole")
    usual = CloudProcesses.__call__

    def killed(trainer: CloudProcesses, *job: object) -> object:
        stepped = lambda *step: trainer._processes.kill()  # noqa: E731
        return usual(trainer, *job[:-1], stepped)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CloudProcesses, "__call__", killed)
        with pytest.raises(FleetError) as error:
            runs.run(experiment, out=tmp_path / "broken")
    assert "resume" in one_line(error)
    assert runs.resume(tmp_path / "broken").rows == whole.rows
    for file in whole.weights.values():
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_processes_of_torchrun_execute_one_run(fork_server: Path, tmp_path: Path) -> None:
    changes = (*EIGHT_EDGES, "method.pretrain.epochs=1", "method.retrain.epochs=1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(rank: int) -> subprocess.Popen[str]:
        settings = [each for change in (*changes, "fleet.processes=2") for each in ("--set", change)]
        environment = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        return subprocess.Popen(
            [str(fork_server / "sheaf"), "run", "ecavg-digits", *settings, "--quiet", "--out", "two"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | environment | {"MASTER_PORT": str(port)},
        )

    both = [start(0), start(1)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed == ["two\n", ""]
    one = runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "one")
    for file in one.weights.values():
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def summed(logits: Tensor, labels: Tensor, context: object) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def test_what_several_processes_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = prepare(load_experiment("ecavg-digits", EIGHT_EDGES))

    def refusal(setup: ExperimentSetup, sizes: Sizes = TWO) -> str:
        with pytest.raises(SettingError) as error:
            run_processes.check_processes(setup, sizes)
        return one_line(error)

    run_processes.check_processes(setup, TWO)
    with monkeypatch.context() as patch:
        patch.setattr(CrossEntropy, "__call__", lambda self, *batch: summed(*batch))
        assert "CrossEntropy is not a mean over examples" in refusal(setup)
        run_processes.check_processes(setup, Sizes(2, 1))
    assert "no MPS; set cloud.processes = 1" in refusal(
        replace(setup, device=torch.device("mps")), Sizes(1, 2)
    )
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert "torchrun started 3 processes" in refusal(setup)
    assert "set one of them, or both, to 3" in refusal(setup)
