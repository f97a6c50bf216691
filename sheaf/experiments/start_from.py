"""Start a run from the models with which another run ended: the cloud's, and that of each edge."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from sheaf.core import atomic_io
from sheaf.core.cut import Cut
from sheaf.core.errors import RunFolderError, SettingError
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import ExperimentSetup
from sheaf.export.trained_model import read_card
from sheaf.models.card import Card
from sheaf.models.checkpoints import load_weights
from sheaf.runtime.result import Result

logger = logging.getLogger("sheaf")

FOLDER = "start"
"""The folder in a run's folder that contains the models it starts from."""


@dataclass(frozen=True)
class StartModels:
    """The models that a run starts from.

    Attributes:
        files: site -> weights file with its card; without the cloud if the run has no model of it.
        cards: site -> the card of its file.
    """

    files: dict[str, Path] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Path) -> StartModels:
        """Return the final models of a finished run.

        Raises:
            RunFolderError: the run is not finished, or has lost a model.
            ModelFileError: a weights file is damaged.
        """
        return cls._of({site: run / file for site, file in Result.read(run).weights.items()})

    @classmethod
    def kept(cls, folder: Path) -> StartModels:
        """Return the models that ``keep`` has stored in a run's folder."""
        return cls._of({path.stem: path for path in sorted((folder / FOLDER).glob("*.safetensors"))})

    @classmethod
    def _of(cls, files: dict[str, Path]) -> StartModels:
        if missing := [path for path in files.values() if not path.is_file()]:
            raise RunFolderError(f"{missing[0]} is missing; name a run whose folder is complete")
        return cls(files, {site: read_card(path) for site, path in files.items()})

    def keep(self, folder: Path) -> None:
        """Store the models in a run's folder, by hard links where possible; resuming uses these."""
        (folder / FOLDER).mkdir()
        for site, path in self.files.items():
            if not atomic_io.link(path, folder / FOLDER / f"{site}.safetensors"):
                shutil.copyfile(path, folder / FOLDER / f"{site}.safetensors")
        atomic_io.sync(folder / FOLDER)

    def adapt(self, experiment: Experiment) -> Experiment:
        """Return the experiment with the normalisation that the models were trained with, unless it sets one.

        Raises:
            SettingError: the experiment has another model.
        """
        if not self.cards:
            return experiment
        card = self.cards.get(CLOUD) or next(iter(self.cards.values()))
        own = experiment.model
        if card.model is not None and (card.model.name, card.model.options) != (own.name, own.options):
            raise SettingError(
                f"--from: the models of that run are {card.model.name} {card.model.options or ''}".rstrip()
                + f", but model.name = {own.name!r} {own.options or ''}".rstrip()
                + "; use the same model in both"
            )
        data = experiment.data
        return replace(experiment, data=replace(data, mean=data.mean or card.mean, std=data.std or card.std))

    def begin(self, setup: ExperimentSetup) -> ExperimentSetup:
        """Return the setup with these models; the network holds the cloud's.

        Raises:
            SettingError: the run had as many classes, but others.
            WeightsError: the model does not fit.
        """
        classes = setup.dataset.classes
        for card in self.cards.values():
            if len(card.classes) == len(classes) and card.classes != classes:
                other = next(pair for pair in zip(card.classes, classes, strict=True) if pair[0] != pair[1])
                raise SettingError(
                    f"--from: that run has the class {other[0]!r} where this one has {other[1]!r}; "
                    "use test data with the same class names"
                )
        notes: list[str] = []
        if CLOUD in self.files:
            notes = load_weights(setup.network.model, str(self.files[CLOUD]))
        edges = {
            site: (None if card.cut is None else Cut.of(card.cut), Blob.at(self.files[site]))
            for site, card in self.cards.items()
            if site in setup.edge_samples and card.classes == classes
        }
        return replace(setup, start=edges, notes=(*setup.notes, *notes))
