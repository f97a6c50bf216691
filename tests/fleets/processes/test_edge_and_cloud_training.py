"""Two processes train as one: edges with the same bits, the cloud's model to rounding."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import one_line
from torch import Tensor

from sheaf.core.errors import FleetError
from sheaf.core.recipe import Recipe
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.experiments import processes as run_processes
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.fleets.processes import edge_training
from sheaf.fleets.processes.cloud_training import CloudProcesses
from sheaf.fleets.processes.edge_training import EdgeProcesses
from sheaf.fleets.processes.group import Processes, Sizes
from sheaf.training.batches import Job
from sheaf.training.lone_site import train_plainly
from sheaf.training.preparation import Preparation

EIGHT_EDGES = ("data.limit=240", "data.limit_test=50", "partition=iid", "partition.edges=8")
TWO = Sizes(2, 2)
RECIPE = Recipe(batch_size=8, lr=0.01, loss="control_variate")
"""Its loss gets a constant for each edge."""
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


@pytest.fixture(scope="module")
def theta(setup: ExperimentSetup) -> Params:
    """The start parameters; some ways of training change those of the model."""
    return setup.theta


def answers(
    setup: ExperimentSetup, theta: Params, folder: Path, processes: EdgeProcesses | None
) -> dict[str, object]:
    asked = {}
    for k, site in enumerate(setup.edge_samples):
        correction = {".correction 9.bias": torch.full((10,), 0.1 * k)}
        asked[site] = Task("train", 1, 7 + k, Blob.of({**theta, **correction}), RECIPE)
    fleet = LocalFleet(setup.edges(folder), processes=processes)
    return {
        each.site: (each.blob and each.blob.sha256, each.metrics, each.counts, each.cost.train_macs)
        for each in fleet.run(asked)
    }


def test_edges_of_two_processes_have_the_bits_of_one(
    setup: ExperimentSetup, theta: Params, two: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks: list[int] = []
    usual = edge_training.train_elsewhere

    def counted(processes: Processes, rank: int, *rest: object, **named: object) -> object:
        ranks.append(rank)
        return usual(processes, rank, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(edge_training, "train_elsewhere", counted)
    own = EdgeProcesses(two, setup.dataset)
    assert answers(setup, theta, tmp_path / "two", own) == answers(setup, theta, tmp_path / "one", None)
    assert ranks
    assert set(ranks) == {1}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_cloud_of_two_processes_trains_as_one(
    setup: ExperimentSetup, theta: Params, two: Processes, recipe: Recipe
) -> None:
    job = Job(theta, setup.dataset.train.select(torch.arange(61)), 5)
    prepared = _prepare(setup)
    steps: list[tuple[object, ...]] = []
    together = CloudProcesses(two, Path("run"))(
        setup.network, None, job, recipe, prepared, lambda *step: steps.append(step)
    )
    alone = train_plainly(setup.network, None, job, recipe, prepared, None)
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    assert steps
    for name, value in together.params.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, alone.params[name], rtol=1e-4, atol=1e-5)
            assert not _near(value, job.start[name]), name
        else:
            assert torch.equal(value, alone.params[name]), name


def _prepare(setup: ExperimentSetup) -> Preparation:
    return Preparation(setup.dataset.mean, setup.dataset.std, setup.device)


def _near(one: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-4))


def test_a_killed_process_leaves_its_edges_to_the_other_and_ends_the_cloud(
    setup: ExperimentSetup, theta: Params, two: Processes, tmp_path: Path
) -> None:
    """The last test with these processes."""
    usual = answers(setup, theta, tmp_path / "one", None)
    two.kill()
    notes: list[str] = []
    own = EdgeProcesses(two, setup.dataset, notes.append)
    assert answers(setup, theta, tmp_path / "two", own) == usual
    assert notes == ["process 1 of the run has ended; its edges train in the other processes"]
    job = Job(theta, setup.dataset.train, 5)
    with pytest.raises(FleetError) as error:
        CloudProcesses(two, tmp_path)(setup.network, None, job, RECIPE, _prepare(setup), None)
    assert f"continue with: sheaf run --resume {tmp_path}" in one_line(error)
