"""An experiment made ready: its data read and split, its model built; nothing trained or written yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, PartitionError, SettingError, UnknownNameError
from sheaf.core.seeds import seed_for
from sheaf.core.types import CLOUD, Params, check_edge_name
from sheaf.data.held_out import hold_out
from sheaf.data.load import load_dataset
from sheaf.experiments.config import Experiment
from sheaf.models.build import build_model
from sheaf.runtime.costs import Ledger
from sheaf.runtime.result import WholeModel
from sheaf.runtime.worker import Worker
from sheaf.submodels.scheme import SiteNeeds
from sheaf.training.loop import pick_device
from sheaf.training.network import Network

logger = logging.getLogger("sheaf")


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` makes ready.

    ``parts`` is each edge's (training samples, held-out samples); ``notes`` is what building the model had to
    say, such as a head that was drawn anew.
    """

    experiment: Experiment
    dataset: Dataset
    parts: dict[str, tuple[Samples, Samples]]
    network: Network
    device: torch.device
    notes: tuple[str, ...]

    @property
    def theta(self) -> Params:
        """The start weights."""
        return {name: value.detach().clone() for name, value in self.network.model.state_dict().items()}

    def drawn(self, seed: int) -> Params:
        """Other start weights.

        Raises:
            SettingError: the experiment's are not drawn.
        """
        settings = self.experiment.model
        if settings.weights is not None:
            raise SettingError(
                "method.own_start draws weights for each edge, and model.weights gives all the same "
                f"({settings.weights!r}); allowed: one of the two"
            )
        return build_model(settings, len(self.dataset.classes), self.dataset.shape, seed).state_dict()

    @property
    def split(self) -> dict[str, list[int]]:
        """Training examples of each class on each edge."""
        return {
            site: train.counts(len(self.dataset.classes)).tolist() for site, (train, _) in self.parts.items()
        }

    @property
    def needs(self) -> list[SiteNeeds]:
        """What each edge has to tell apart and can carry."""
        widths = self.experiment.fleet.widths
        return [
            SiteNeeds(site, tuple(k for k, count in enumerate(counts) if count), widths.get(site, 1.0))
            for site, counts in self.split.items()
        ]

    def ledger(self) -> Ledger:
        """Where what the sites spend is booked."""
        return Ledger(tuple(self.parts), self.whole.macs_per_example, self.whole.parameters)

    @property
    def whole(self) -> WholeModel:
        """What the whole model costs."""
        macs = self.network.macs()
        return WholeModel(
            macs_per_example=macs.forward,
            train_macs_per_example=macs.train,
            parameters=self.network.numbers(),
        )

    def edges(self, folder: Path) -> list[Worker]:
        """A Worker for each edge, which keeps what it holds under ``folder``."""
        return [
            Worker(
                site,
                self.network,
                replace(self.dataset, train=train),
                held_out,
                folder,
                self.device,
            )
            for site, (train, held_out) in self.parts.items()
        ]

    def cloud(self, folder: Path) -> Worker:
        """The cloud's Worker; its pool is empty until edges share."""
        nothing = self.dataset.train.select(torch.arange(0))
        return Worker(
            CLOUD,
            self.network,
            replace(self.dataset, train=nothing),
            nothing,
            folder,
            self.device,
        )


def prepare(
    experiment: Experiment, data: Path | None = None, counts: Mapping[str, Sequence[int]] | None = None
) -> Prepared:
    """Reads the data, splits it and builds the model.

    Args:
        counts: edge -> training examples of each class that it has on its own disk; unset: the data
            is split here, by the experiment's partition.

    Raises:
        SheafError: data, split or model cannot be had as the experiment asks.
    """
    dataset = load_dataset(experiment.data, data)
    with _heard() as notes:
        seed = seed_for(experiment.seed, "model")
        model = build_model(experiment.model, len(dataset.classes), dataset.shape, seed)
    parts = split(experiment, dataset) if counts is None else _elsewhere(counts, dataset)
    for site in experiment.fleet.widths:
        if site not in parts:
            raise UnknownNameError("edge", site, parts)
    return Prepared(
        experiment,
        dataset,
        parts,
        Network(model, dataset.shape),
        pick_device(experiment.fleet.device),
        tuple(notes),
    )


def _elsewhere(counts: Mapping[str, Sequence[int]], dataset: Dataset) -> dict[str, tuple[Samples, Samples]]:
    """Parts that are on the edges' own disks: here there is how many of each class they are."""
    parts = {}
    for site, of_class in counts.items():
        labels = torch.repeat_interleave(
            torch.arange(len(of_class)), torch.tensor(of_class, dtype=torch.int64)
        )
        nothing = dataset.train.inputs[:0]
        train = Samples(nothing, labels, torch.arange(len(labels)))
        parts[site] = train, train.select(torch.arange(0))
    return parts


def split(experiment: Experiment, dataset: Dataset) -> dict[str, tuple[Samples, Samples]]:
    """Each edge's (training samples, held-out samples).

    Raises:
        PartitionError: an edge is left with nothing to train on, or its name is no name of a file.
    """
    labels = dataset.train.labels
    positions = experiment.partition(labels, dataset.classes, seed_for(experiment.seed, "partition"))
    parts = {}
    for site, own in positions.items():
        check_edge_name(site)
        seed = seed_for(experiment.seed, "held out", site)
        try:
            parts[site] = hold_out(dataset.train.select(own), experiment.data.held_out, seed)
        except DataError as error:
            raise PartitionError(f"{site}: {error}") from error
    return parts


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    with listening(handler):
        yield notes


@contextmanager
def listening(handler: logging.Handler) -> Iterator[None]:
    """Has ``handler`` hear what sheaf logs meanwhile."""
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
