"""The in-process fleet: whoever trains together, the answers are those of each alone."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pytest
import torch
from support import lose
from torch import Tensor, nn

from sheaf.core import registry
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.task import Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.fleets.local.scheduling import Mode, SiteGroup, _stacks, group_sites
from sheaf.models.user_model import check_model
from sheaf.runtime.journal import Journal
from sheaf.runtime.worker import Worker
from sheaf.training.evaluation import evaluate
from sheaf.training.network import Network

SITES = tuple(f"edge-{k}" for k in range(10))
SIZES = (30, 9, 25, 60, 17, 41, 20, 33, 8, 50)
RECIPE = Recipe(batch_size=8, lr=0.01)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def forgetful() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3))


def drawing() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.AlphaDropout(), nn.Linear(16, 3))


class Counting(nn.Module):
    """A user's: Python counts the steps, and another layer is trained after the third."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.early, self.late = linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.early(x) if self.training and self.steps <= 3 else self.late(x)


class Averaging(nn.Module):
    """A user's: a buffer is assigned anew in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        if self.training:
            self.mean = 0.9 * self.mean + y.detach().mean(0)
        return y - self.mean


class Drawing(nn.Module):
    """A user's: Python draws whether a layer is skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.f = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if not (self.training and random.random() < 0.5):
            h = h + self.b(h).relu()
        return self.f(h.mean((2, 3)))


class Storing(nn.Module):
    """A user's: a hook stores features in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.f = nn.Conv2d(1, 4, 3), nn.Linear(8, 3)
        self.a.register_forward_hook(self.store)

    def store(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.features = output

    def forward(self, x: Tensor) -> Tensor:
        return self.f(torch.cat([self.a(x).relu(), self.features], 1).mean((2, 3)))


USERS = (Counting, Averaging, Drawing, Storing)


def started(make) -> nn.Module:
    model, draws = make(), generator(4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=draws)
    if make in USERS:
        check_model(model, make.__name__, 3, (1, 4, 4), make)
    return model


def workers(folder: Path, make=linear, held_out: int = 0) -> dict[str, Worker]:
    inputs = torch.randint(256, (sum(SIZES), 1, 4, 4), generator=generator(2), dtype=torch.uint8)
    pool = Samples.of(inputs, torch.arange(sum(SIZES)) % 3)
    data = Dataset("tiny", pool, pool, ("a", "b", "c"), (0.5,), (0.25,), "")
    network = Network(started(make), (1, 4, 4))
    parts = torch.arange(sum(SIZES)).split(SIZES)
    return {
        site: Worker(
            site, network, replace(data, train=pool.select(own)), pool.select(own[:held_out]), folder / site
        )
        for site, own in zip(SITES, parts, strict=True)
    }


def tasks(make=linear, kind="train") -> dict[str, Task]:
    blob, recipe = Blob.of(started(make).state_dict()), RECIPE if kind == "train" else None
    return {site: Task(kind, 1, 7 + k, blob, recipe) for k, site in enumerate(SITES)}


def answers(fleet: LocalFleet, asked: dict[str, Task], call: dict[str, Task] | None = None):
    return {update.site: update for update in fleet.run(asked, call)}


@pytest.fixture(autouse=True)
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine too, training again is cheaper than writing."""
    monkeypatch.setattr("sheaf.runtime.worker_group.WORTH_A_FILE", math.inf)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@cache
def one_by_one(make, loss: str) -> tuple[dict[str, Task], dict[str, Update]]:
    """Return the tasks with a loss, and the answers of sites that train one after another."""
    asked = {site: replace(task, recipe=replace(RECIPE, loss=loss)) for site, task in tasks(make).items()}
    with TemporaryDirectory() as folder:
        fleet = LocalFleet(list(workers(Path(folder), make).values()), together="never")
        return asked, answers(fleet, asked)


@pytest.mark.parametrize("loss", sorted({*registry.describe("losses")} - {"distillation"}))  # needs a teacher
@pytest.mark.parametrize("make", [linear, convolutional, forgetful, drawing])
@pytest.mark.parametrize("together", get_args(Mode))
@pytest.mark.usefixtures("two_threads")
def test_every_way_of_training_gives_the_same_with_every_loss(
    make, together: Mode, loss: str, tmp_path: Path
) -> None:
    asked, alone = one_by_one(make, loss)
    fleet = LocalFleet(list(workers(tmp_path, make).values()), together=together)
    found = answers(fleet, asked)
    assert set(found) == set(SITES)
    for site, update in found.items():
        assert update.counts == alone[site].counts
        assert update.cost.train_macs == alone[site].cost.train_macs
        assert update.metrics["losses"] == pytest.approx(alone[site].metrics["losses"], rel=1e-4)
        for name, value in update.params.items():
            torch.testing.assert_close(value, alone[site].params[name], rtol=1e-3, atol=1e-4)
    held = answers(fleet, {site: Task("collect", 2, 0) for site in SITES})
    for site in SITES:
        assert held[site].blob is not None
        assert held[site].blob.sha256 == found[site].blob.sha256  # type: ignore[union-attr]


def how(make, folder: Path, together: Mode = "auto", threads: int = 2) -> tuple[list[SiteGroup], list[str]]:
    torch.set_num_threads(threads)
    return group_sites(workers(folder, make), tasks(make), together)


@pytest.mark.usefixtures("two_threads")
def test_who_trains_together(tmp_path: Path) -> None:
    stacks, alone = how(linear, tmp_path)
    assert [len(group.names) for group in stacks] == [5, 5]
    assert how(linear, tmp_path, threads=1) == how(linear, tmp_path, threads=4) == (stacks, alone)
    assert alone == []
    by_size = sorted(SITES, key=lambda site: -SIZES[SITES.index(site)])
    assert [name for group in stacks for name in group.names] == by_size
    assert how(convolutional, tmp_path) == ([SiteGroup((site,), stacked=True) for site in SITES], [])
    assert how(convolutional, tmp_path, threads=1) == ([], list(SITES)), "one core, one after another"
    assert len(how(convolutional, tmp_path, "stacked")[0]) == 2
    by_itself = [SiteGroup((site,), stacked=False) for site in SITES]
    assert how(forgetful, tmp_path) == (by_itself, []), "each draws of its own"
    for together in get_args(Mode):
        assert how(drawing, tmp_path, together) == ([], list(SITES)), "from the generator of the process"
    assert how(linear, tmp_path, "never") == ([], list(SITES))


def test_a_stack_fits_in_the_cache() -> None:
    names = tuple(map(str, range(100)))
    for fit, count in ((0, 26), (3, 26), (8, 14), (12, 10), (1000, 10)):
        stacks = _stacks(names, fit)
        assert sum(stacks, ()) == names
        assert len(stacks) == count
    assert [len(_stacks(names[:n], 8)) for n in (4, 7, 8, 12, 20)] == [1, 1, 2, 4, 4]


def test_groups_do_not_depend_on_the_order_of_tasks(tmp_path: Path) -> None:
    own = workers(tmp_path)
    asked = tasks()
    assert group_sites(own, asked, "auto") == group_sites(own, dict(reversed(asked.items())), "auto")


def test_other_recipes_and_too_few_sites_are_not_stacked(tmp_path: Path) -> None:
    asked = tasks()
    for site in SITES[:3]:
        asked[site] = replace(asked[site], recipe=replace(RECIPE, lr=0.5))
    stacks, alone = group_sites(workers(tmp_path), asked, "auto")
    assert sorted(alone) == sorted(SITES[:3])
    assert sorted(name for group in stacks for name in group.names) == sorted(SITES[3:])


@pytest.mark.parametrize("make", USERS)
@pytest.mark.parametrize("together", ["stacked", "threads"])
@pytest.mark.usefixtures("two_threads")
def test_models_with_effects_train_alike_in_every_way(make, together: Mode, tmp_path: Path) -> None:
    asked = tasks(make)
    alone = answers(LocalFleet(list(workers(tmp_path / "a", make).values()), together="never"), asked)
    found = answers(LocalFleet(list(workers(tmp_path / "b", make).values()), together=together), asked)
    for site, update in found.items():
        for name, value in update.params.items():
            torch.testing.assert_close(value, alone[site].params[name], rtol=1e-4, atol=1e-5)
    again = LocalFleet(list(workers(tmp_path / "c", make).values()), together=together)
    (rest,) = answers(again, {SITES[6]: asked[SITES[6]]}, asked).values()
    assert rest.blob.sha256 == found[SITES[6]].blob.sha256, "a resumed run trains the remaining site alike"


@pytest.mark.parametrize("make", [linear, convolutional])
@pytest.mark.usefixtures("two_threads")
def test_resumed_in_mid_call_it_answers_with_the_same_bits(make, tmp_path: Path) -> None:
    whole = answers(LocalFleet(list(workers(tmp_path / "a", make).values())), tasks(make))
    left = SITES[2:4] + SITES[7:]
    again = LocalFleet(list(workers(tmp_path / "b", make).values()))
    rest = answers(again, {site: tasks(make)[site] for site in left}, tasks(make))
    assert set(rest) == set(left)
    for site in left:
        assert rest[site].blob.sha256 == whole[site].blob.sha256  # type: ignore[union-attr]


@pytest.mark.usefixtures("two_threads")
def test_stopped_in_mid_call_nobody_trains_on(tmp_path: Path) -> None:
    steps: list[str] = []
    fleet = LocalFleet(
        list(workers(tmp_path, convolutional).values()), lambda site, *step: steps.append(site)
    )
    slow = {
        site: replace(task, recipe=replace(RECIPE, epochs=500)) for site, task in tasks(convolutional).items()
    }
    slow[SITES[0]] = tasks(convolutional)[SITES[0]]
    running = fleet.run(slow)
    assert next(running).site == SITES[0]
    running.close()
    told = len(steps)
    time.sleep(0.3)
    assert len(steps) == told
    assert torch.get_num_threads() == 2


def test_one_model_on_one_test_set_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = LocalFleet(list(workers(tmp_path).values()))
    apart = {
        site: own.do(tasks(kind="evaluate")[site]).metrics for site, own in workers(tmp_path / "b").items()
    }
    evaluated: list[nn.Module] = []
    usual = evaluate

    def counting(model: nn.Module, *rest: object) -> tuple[Tensor, float]:
        evaluated.append(model)
        return usual(model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("sheaf.runtime.site_evaluation.evaluate", counting)
    found = answers(fleet, tasks(kind="evaluate"))
    assert {site: update.metrics for site, update in found.items()} == apart
    assert len(evaluated) == 1
    list(fleet.run(tasks()))
    list(fleet.run({site: Task("evaluate", 2, 0) for site in SITES}))
    assert len(evaluated) == 1 + len(SITES), "ten models"


def test_what_is_held_out_is_measured_by_each(tmp_path: Path) -> None:
    own = workers(tmp_path, held_out=5)
    found = answers(LocalFleet(list(own.values())), tasks(kind="evaluate"))
    for site, worker in own.items():
        assert found[site].metrics == worker.do(tasks(kind="evaluate")[site]).metrics
        assert "held_out" in found[site].metrics


class Unsynced(Future[None]):
    """The disk takes nothing of these files before one waits for it."""

    def __init__(self, synced: set[int], *paths: Path) -> None:
        super().__init__()
        self._synced = synced
        self._files = [path.open("r+b") for path in paths if path.is_file()]

    def result(self, timeout: float | None = None) -> None:
        self._synced.update(os.fstat(file.fileno()).st_ino for file in self._files)

    def lose_power(self) -> None:
        for file in self._files:
            if os.fstat(file.fileno()).st_ino not in self._synced:
                file.truncate(0)
            file.close()


@pytest.mark.parametrize("answered", [3, 9, 14])
@pytest.mark.parametrize("power", ["stays", "is lost"])
@pytest.mark.usefixtures("two_threads")
def test_a_run_stopped_within_a_stack_ends_with_the_same_bits(
    answered: int, power: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["data.limit=400", "data.limit_test=50", "partition=iid", "partition.edges=8", "method=fedavg"]
    experiment = load_experiment("ecavg-digits", [*changes, "method.rounds=2"])
    whole = runs.run(experiment, out=tmp_path / "whole")
    monkeypatch.setattr("sheaf.runtime.worker_group.WORTH_A_FILE", 0.0)  # models are written
    record, count = Journal.record, itertools.count(1)
    unsynced: list[Unsynced] = []
    synced: set[int] = set()

    def unplugged(journal: Journal, task: Task, update: Update, flaw: str | None) -> Update:
        number = next(count)
        if number > answered:
            raise KeyboardInterrupt
        if number == answered // 2:
            journal.settle()
        return record(journal, task, update, flaw)

    def syncing(*paths: Path) -> Unsynced:
        unsynced.append(Unsynced(synced, *paths))
        return unsynced[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", unplugged)
        if power == "is lost":
            patch.setattr("sheaf.runtime.journal.TOGETHER", 1000.0)
            patch.setattr("sheaf.runtime.worker_group.sync_soon", syncing)
            patch.setattr("sheaf.core.tensor_file.sync_soon", syncing)
            patch.setattr(Journal, "__exit__", lose)
        with pytest.raises(KeyboardInterrupt):
            runs.run(experiment, out=tmp_path / "broken")
    for each in unsynced:
        each.lose_power()
    assert runs.resume(tmp_path / "broken").rows == whole.rows
    for file in whole.weights.values():
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
