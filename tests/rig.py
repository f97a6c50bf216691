"""A small run for tests of calls, edges and cloud: four edges with tiny data, a journal and a ledger."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.task import Absence, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.merges.rules.mean import Mean
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.runtime.costs import Ledger
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.worker import Worker
from sheaf.submodels.scheme import SiteNeeds
from sheaf.training.network import Network

RECIPE = Recipe(batch_size=8)
SITES = ("c", "a", "d", "b")


def model(seed: int = 4) -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    draws = generator(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=draws)
    return made


def network() -> Network:
    return Network(model(), (1, 4, 4))


def theta() -> dict[str, Tensor]:
    return model().state_dict()


def drawn(seed: int) -> dict[str, Tensor]:
    return model(seed).state_dict()


def dataset() -> Dataset:
    inputs = torch.randint(256, (48, 1, 4, 4), generator=generator(2), dtype=torch.uint8)
    everything = Samples.of(inputs, torch.arange(48) % 3)
    return Dataset("tiny", everything, everything, ("a", "b", "c"), (0.5,), (0.25,), "")


def workers(folder: Path) -> list[Worker]:
    data = dataset()
    parts = torch.arange(48).split(12)
    return [
        Worker(
            site,
            network(),
            replace(data, train=data.train.select(part)),
            data.train.select(part[:0]),
            folder / site,
        )
        for site, part in zip(SITES, parts, strict=True)
    ]


class Fleet(LocalFleet):
    """A fleet that records its tasks, answers in random order, and can falsify answers.

    Args:
        folder: the sites' folder.
        seed: of the order of the answers.
        says: site -> function of its true parameters that returns the ones to send; None sends no answer.
    """

    def __init__(self, folder: Path, seed: int = 0, says: Mapping[str, object] | None = None) -> None:
        super().__init__(workers(folder))
        self.asked: list[tuple[int, str]] = []
        self._order = random.Random(seed)
        self._says = says or {}

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        self.asked += [(task.call, site) for site, task in tasks.items()]
        shuffled = dict(self._order.sample(list(tasks.items()), len(tasks)))
        for update in super().run(shuffled, call):
            says = self._says.get(update.site, lambda params: params)
            if callable(says):
                sent = says(update.params) if update.blob and update.kind == "train" else None
                yield update if sent is None else replace(update, blob=Blob.of(sent))


class Listener(NullObserver):
    """An observer that records calls, answers and refusals."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self.told.append((kind, tuple(sites)))

    def answered(self, site: str) -> None:
        self.told.append((site,))

    def refused(self, site: str, why: str) -> None:
        self.told.append((site, why))


class Rig:
    """A run's calls and edges over a fleet."""

    def __init__(
        self,
        folder: Path,
        fleet: LocalFleet | None = None,
        quorum: float = 0.5,
        needs: Sequence[SiteNeeds] = (),
        coding: CloudCoding | None = None,
    ) -> None:
        self.fleet = fleet or Fleet(folder / "sites")
        self.journal = Journal(folder / "journal", {})
        self.ledger = Ledger(SITES, 0, 0)
        self.observer = Listener()
        self.calls = Calls(5, self.journal, self.ledger, self.observer)
        needs = needs or [SiteNeeds(site, (0, 1, 2)) for site in SITES]
        self.edges = Edges(self.calls, self.fleet, network(), needs, quorum, drawn, coding=coding)

    def __enter__(self) -> Rig:
        self.journal.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.journal.__exit__(*error)


def merged_bits(rig: Rig, rounds: int = 2) -> str:
    params = theta()
    for _ in range(rounds):
        params = dict(rig.edges.merge(Mean(), params, rig.edges.train(params, RECIPE)))
    return Blob.of(params).sha256


def not_finite(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**params, "1.weight": params["1.weight"] * float("nan")}


def too_wide(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**params, "1.bias": torch.zeros(1)}


class Partial(Fleet):
    """A fleet whose sites are absent from some calls, given as call -> sites."""

    def __init__(self, folder: Path, absences: Mapping[int, Sequence[str]]) -> None:
        super().__init__(folder)
        self.absences = absences
        self.tasks: list[tuple[str, Task]] = []

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        self.tasks += tasks.items()
        gone = [site for site, task in tasks.items() if site in self.absences.get(task.call, ())]
        yield from (Absence(site, "its battery is empty") for site in gone)
        yield from super().run({site: task for site, task in tasks.items() if site not in gone})
