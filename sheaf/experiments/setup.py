"""Set up an experiment: read and split its data, build its model. Trains and writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sheaf.core import objects, registry
from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, SettingError, UnknownNameError
from sheaf.core.log_capture import collect_logs
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import seed_for
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD, Params
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.data.unlabelled import Unlabelled, load_unlabelled
from sheaf.experiments.config import Experiment
from sheaf.experiments.edge_samples import samples_of_counts, split
from sheaf.fleets.local.scheduling import examine_ways
from sheaf.models.build import build_model
from sheaf.profiles.assignment import Devices, assign_devices
from sheaf.runtime.codec_check import check_codec
from sheaf.runtime.costs import Ledger
from sheaf.runtime.result import WholeModel
from sheaf.runtime.teachers import Teach, mean_logits
from sheaf.runtime.worker import Train, Worker
from sheaf.submodels.scheme import SiteNeeds
from sheaf.training.lone_site import LoneSite
from sheaf.training.network import Network
from sheaf.training.preparation import pick_device

logger = logging.getLogger("sheaf")


@dataclass(frozen=True)
class ExperimentSetup:
    """An experiment with its data and model.

    Attributes:
        experiment: its settings.
        dataset: its data.
        edge_samples: edge -> (training samples, held-out samples).
        network: the whole model.
        device: the device on which the sites compute.
        notes: messages logged while reading the data and building the model, such as a newly initialised
            classifier.
        start: edge -> the cut and the parameters of the model that it starts from; empty: all start from
            ``theta``.
        left_out: device -> why it takes no part in the run.
        root: the directory in which named datasets were looked for first.
        devices: the devices that the edges stand for; None: there is no virtual clock.
        public: the cloud's own samples without labels; None: it has none.
    """

    experiment: Experiment
    dataset: Dataset
    edge_samples: dict[str, tuple[Samples, Samples]]
    network: Network
    device: torch.device
    notes: tuple[str, ...]
    start: Mapping[str, tuple[Cut | None, Blob]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    devices: Devices | None = None
    public: Unlabelled | None = None

    @property
    def theta(self) -> Params:
        """The initial parameters."""
        return {name: value.detach().clone() for name, value in self.network.model.state_dict().items()}

    def draw(self, seed: int) -> Params:
        """Return other initial parameters.

        Raises:
            SettingError: ``model.weights`` or a given module sets the initial parameters.
        """
        settings = self.experiment.model
        if "start" in objects.records([settings.name]).get(settings.name, {}):
            raise SettingError(
                "method.own_start initialises each edge separately, but the model is a module with "
                "weights of its own; give a function that returns a new module"
            )
        if settings.weights is not None:
            raise SettingError(
                "method.own_start initialises each edge separately, but model.weights = "
                f"{settings.weights!r} gives all edges the same weights; remove one of the two"
            )
        return build_model(settings, len(self.dataset.classes), self.dataset.shape, seed).state_dict()

    @property
    def split(self) -> dict[str, list[int]]:
        """Edge -> the number of training examples of each class."""
        return {
            site: train.counts(len(self.dataset.classes)).tolist()
            for site, (train, _) in self.edge_samples.items()
        }

    @property
    def needs(self) -> list[SiteNeeds]:
        """The classes and the capacity of each edge."""
        fleet = self.experiment.fleet
        return [
            SiteNeeds(
                site,
                tuple(k for k, count in enumerate(counts) if count),
                fleet.widths.get(site, 1.0),
                fleet.work.get(site, 1.0),
                fleet.shares.get(site, 1.0),
            )
            for site, counts in self.split.items()
        ]

    def ledger(self) -> Ledger:
        """Return an empty ledger of the sites' costs."""
        return Ledger(tuple(self.edge_samples), self.whole.macs_per_example, self.whole.parameters)

    @property
    def whole(self) -> WholeModel:
        """The cost of the whole model."""
        macs = self.network.macs()
        return WholeModel(
            macs_per_example=macs.forward,
            train_macs_per_example=macs.train,
            parameters=self.network.num_parameters(),
        )

    def edges(self, folder: Path) -> list[Worker]:
        """Return a worker for each edge; its models are stored under ``folder``."""
        return [
            Worker(
                site,
                self.network,
                replace(self.dataset, train=train),
                held_out,
                folder,
                self.device,
            )
            for site, (train, held_out) in self.edge_samples.items()
        ]

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each dataset by its name."""
        return {name: each.fingerprint for name, each in self._datasets.items()}

    @property
    def commits(self) -> dict[str, str]:
        """The commit of each dataset of the Hugging Face Hub by its name."""
        return {name: each.commit for name, each in self._datasets.items() if each.commit}

    @property
    def _datasets(self) -> dict[str, Dataset | Unlabelled]:
        datasets: dict[str, Dataset | Unlabelled] = {self.dataset.name: self.dataset}
        if self.public is not None and self.experiment.cloud.public is not None:
            datasets[f"public {self.experiment.cloud.public.name}"] = self.public
        return datasets

    def cloud(self, folder: Path, train: Train | None = None, teach: Teach = mean_logits) -> Worker:
        """Return the worker of the cloud, whose pool is empty at first.

        Args:
            folder: its models are stored there.
            train: how it trains; by default, in this process.
            teach: how it computes the logits of teachers.
        """
        nothing = self.dataset.train.select(torch.arange(0))
        return Worker(
            CLOUD,
            self.network,
            replace(self.dataset, train=nothing),
            nothing,
            folder,
            self.device,
            train=train or LoneSite(),
            public=None if self.public is None else self.public.samples,
            teach=teach,
        )


def prepare(
    experiment: Experiment, data: Path | None = None, counts: Mapping[str, Sequence[int]] | None = None
) -> ExperimentSetup:
    """Read the data, split it and build the model.

    Args:
        experiment: its settings.
        data: the directory in which named datasets are looked for first.
        counts: edge -> the number of training examples of each class, for edges that have their own data;
            None: split the data here, by the experiment's partition.

    Raises:
        SheafError: data, split or model do not fit the settings, or the method cannot cut the model.
    """
    for key in ("upload", "download"):
        check_codec(f"fleet.{key}", getattr(experiment.fleet, key))
    for site, codec in experiment.fleet.codecs.items():
        check_codec(f"fleet.codecs.{site}", codec)
    with collect_logs() as notes:
        dataset = load_dataset(experiment.data, data)
        seed = seed_for(experiment.seed, "model")
        if counts is None and not len(dataset.train):
            raise DataError(
                f"{dataset.name} has no training examples, which only the cloud of a real fleet can do "
                "without: add a train folder, or set data.test_share below 1"
            )
        if counts is not None:
            _note_test_data(experiment.data, dataset)
        public = _public(experiment, dataset, data)
        model = build_model(experiment.model, len(dataset.classes), dataset.shape, seed)
    edge_samples = split(experiment, dataset) if counts is None else samples_of_counts(counts, dataset)
    fleet = experiment.fleet
    for of_edges in (fleet.widths, fleet.work, fleet.shares, fleet.codecs):
        for site in of_edges:
            if site not in edge_samples:
                raise UnknownNameError("edge", site, edge_samples)
    setup = ExperimentSetup(
        experiment,
        dataset,
        edge_samples,
        Network(model, dataset.shape),
        pick_device(experiment.fleet.device),
        (),
        root=data,
        devices=None if counts is not None else _devices(experiment, edge_samples),
        public=public,
    )
    sizes = [each.batch_size for each in vars(experiment.method).values() if isinstance(each, Recipe)]
    if counts is None and sizes:  # otherwise devices train by themselves
        with collect_logs() as of_ways:
            examine_ways(setup.network, experiment.fleet.together, min(sizes))
        notes += of_ways
    if getattr(experiment.method, "refit", "none") != "none":
        _ = setup.network.classifier  # raises an error before anything is trained
    if getattr(experiment.method, "own_classes", False):
        _ = setup.network.classifier_bias  # likewise
    known = [site for site in setup.needs if site.classes]  # devices that have not joined have no classes
    if known and (scheme := getattr(experiment.method, "cut", None)) is not None:
        with collect_logs() as of_cut:
            scheme(setup.network.structure, known, 0)
        notes += of_cut
    return replace(setup, notes=tuple(notes))


def _public(experiment: Experiment, dataset: Dataset, root: Path | None) -> Unlabelled | None:
    """Return the cloud's own samples without labels, if the method uses them."""
    if (public := experiment.cloud.public) is None:
        return None
    if not experiment.distils:
        logger.info(
            "cloud.public is not read: only a method whose finetune has the loss distillation uses it"
        )
        return None
    unlabelled = load_unlabelled(public, dataset, root, seed_for(experiment.seed, "public"))
    logger.info("%d samples of %s, without labels, are the cloud's own", len(unlabelled.samples), public.name)
    return unlabelled


def _devices(experiment: Experiment, sites: Collection[str]) -> Devices | None:
    """Return the devices that the edges stand for.

    Raises:
        SheafError: a profile is wrong, or a limit needs profiles.
    """
    fleet = experiment.fleet
    if fleet.devices is not None:
        return assign_devices(fleet.devices, sites, experiment.seed)
    for name in ("seconds", "joules"):
        if fleet.stop_at is not None and getattr(fleet.stop_at, name) is not None:
            raise SettingError(
                f"fleet.stop_at.{name} needs a virtual clock: set fleet.devices, as in "
                'fleet.devices.mix = { "raspberry-pi-4+lte" = 1 }'
            )
    return None


def _note_test_data(settings: DataSettings, dataset: Dataset) -> None:
    """Log which examples of a folder the cloud of a fleet uses, and which statistics."""
    if settings.name in registry.describe("data"):
        return
    if len(dataset.train):
        logger.info(
            "%s: %d of %d examples, the test split, are the cloud's test data, and the others are not used; "
            "data.test_share = 1 uses all examples of a folder without train and test",
            settings.name,
            len(dataset.test),
            len(dataset.test) + len(dataset.train),
        )
    elif settings.mean is None or settings.std is None:
        logger.info(
            "%s: the mean and the standard deviation are those of the %d test examples; "
            "data.mean and data.std set others",
            settings.name,
            len(dataset.test),
        )
