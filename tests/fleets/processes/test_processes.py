"""Two processes train as one: edges with the same bits, the cloud's model to rounding."""

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
from sheaf.core.recipe import Recipe
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.experiments import processes as run_processes
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.fleets.processes import edge_training
from sheaf.fleets.processes.cloud_training import CloudProcesses
from sheaf.fleets.processes.edge_training import EdgeProcesses
from sheaf.fleets.processes.group import Processes, Sizes
from sheaf.runtime.worker import train_here
from sheaf.training.batches import Job
from sheaf.training.losses.cross_entropy import CrossEntropy

EIGHT_EDGES = ("data.limit=240", "data.limit_test=50", "partition=iid", "partition.edges=8")
TWO = Sizes(2, 2)
RECIPE = Recipe(batch_size=8, lr=0.01)
RECIPES = [
    Recipe(batch_size=7, epochs=2, lr=0.05, optimizer="sgd", augment=("flip", "crop")),
    Recipe(batch_size=4, schedule="cosine", average_last=0.5, loss="proximal", lr=0.01, optimizer="sgd"),
]


@pytest.fixture(scope="module", autouse=True)
def forked(fork_server: Path) -> Iterator[None]:
    """Start processes as forks of one that has imported torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(fork_server / "python"))
        yield


@pytest.fixture(scope="module")
def setup() -> ExperimentSetup:
    changes = (*EIGHT_EDGES, "model.name=toys:DroppingCNN", "fleet.threads=1")
    return prepare(load_experiment("ecavg-digits", changes))


@pytest.fixture(scope="module")
def two(setup: ExperimentSetup) -> Iterator[Processes]:
    with run_processes.start(setup, TWO) as found:
        assert found is not None
        yield found


def tasks(setup: ExperimentSetup) -> dict[str, Task]:
    blob = Blob.of(setup.theta)
    return {site: Task("train", 1, 7 + k, blob, RECIPE) for k, site in enumerate(setup.edge_samples)}


def answers(setup: ExperimentSetup, folder: Path, processes: EdgeProcesses | None) -> dict[str, object]:
    asked = tasks(setup)
    fleet = LocalFleet(setup.edges(folder), processes=processes)
    return {
        each.site: (each.blob and each.blob.sha256, each.metrics, each.counts, each.cost.train_macs)
        for each in fleet.run(asked)
    }


def test_edges_of_two_processes_have_the_bits_of_one(
    setup: ExperimentSetup, two: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks: list[int] = []
    usual = edge_training.train_elsewhere

    def counted(processes: Processes, rank: int, *rest: object, **named: object) -> object:
        ranks.append(rank)
        return usual(processes, rank, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(edge_training, "train_elsewhere", counted)
    own = EdgeProcesses(two, setup.dataset)
    assert answers(setup, tmp_path / "two", own) == answers(setup, tmp_path / "one", None)
    assert ranks
    assert set(ranks) == {1}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_cloud_of_two_processes_trains_as_one(
    setup: ExperimentSetup, two: Processes, recipe: Recipe
) -> None:
    job = Job(setup.theta, setup.dataset.train.select(torch.arange(61)), 5)
    prepared = _prepare(setup)
    steps: list[tuple[object, ...]] = []
    together = CloudProcesses(two)(
        setup.network.model, job, recipe, prepared, lambda *step: steps.append(step)
    )
    alone = train_here(setup.network.model, job, recipe, prepared, None)
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    assert steps
    for name, value in together.params.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, alone.params[name], rtol=1e-4, atol=1e-5)
            assert not _near(value, job.start[name]), name
        else:
            assert torch.equal(value, alone.params[name]), name


def _prepare(setup: ExperimentSetup):
    from sheaf.training.preparation import Preparation

    return Preparation(setup.dataset.mean, setup.dataset.std, setup.device)


def _near(one: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-4))


def test_a_killed_process_leaves_its_edges_to_the_other_and_ends_the_cloud(
    setup: ExperimentSetup, two: Processes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test with these processes."""
    usual = answers(setup, tmp_path / "one", None)
    two.kill()
    assert answers(setup, tmp_path / "two", EdgeProcesses(two, setup.dataset)) == usual
    assert caplog.messages == ["process 1 of the run has ended; its edges train in the other processes"]
    job = Job(setup.theta, setup.dataset.train, 5)
    with pytest.raises(FleetError) as error:
        CloudProcesses(two)(setup.network.model, job, RECIPE, _prepare(setup), None)
    assert "resume" in one_line(error)


def test_a_run_whose_process_is_killed_in_a_step_resumes_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (*EIGHT_EDGES, "method.pretrain.epochs=1", "method.retrain=none", "cloud.processes=2")
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
    changes = (*EIGHT_EDGES, "method.pretrain.epochs=1", "method.retrain=none")
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
    setup: ExperimentSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
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
