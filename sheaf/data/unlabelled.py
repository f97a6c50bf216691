"""Samples without labels that the cloud holds, in the form of an experiment's data: ``[cloud.public]``."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from sheaf.core import registry
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, UnknownNameError
from sheaf.core.notes import hold_notes, log_notes
from sheaf.core.seeds import generator
from sheaf.core.settings import settings
from sheaf.data.array_store import ArrayStore
from sheaf.data.load import candidate_folders, data_root, dataset_of, load_dataset
from sheaf.data.read_once import read_once
from sheaf.data.readers import images, logmel
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Kind
from sheaf.data.readers.folder_layout import walk_files
from sheaf.data.readers.hub_repository import PREFIX
from sheaf.data.readers.labelled_files import split_of_files
from sheaf.data.settings import DataSettings
from sheaf.data.validation import type_and_shape

logger = logging.getLogger("sheaf")


@settings
class PublicSettings:
    """The keys under ``[cloud.public]``: samples that the cloud holds, whose labels are not used.

    They are converted to the shape of the experiment's examples, and normalised like these.

    Attributes:
        name: a folder of images or sounds in any arrangement, without labels; or a dataset as in
            ``data.name``, whose training examples are used. Files that cannot be read are left out, with a
            note.
        limit: the largest number of samples, drawn with the experiment's seed, at least 1. Unset: all.
    """

    name: str
    limit: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Unlabelled:
    """Samples without labels.

    Attributes:
        samples: of the shape and type of the experiment's examples; their labels mean nothing.
        fingerprint: SHA-256 of all inputs, before the draw.
        commit: hash of the commit of a dataset of the Hub; None for others.
    """

    samples: Samples
    fingerprint: str
    commit: str | None = None


def load_unlabelled(public: PublicSettings, like: Dataset, root: Path | None, seed: int) -> Unlabelled:
    """Read samples and convert them to the form of a dataset.

    Args:
        public: the settings.
        like: the experiment's dataset.
        root: the directory in which named datasets are looked for first.
        seed: of the draw of ``limit`` samples.

    Raises:
        DataError: they cannot be found, read or converted.
        UnknownNameError: the name is neither a known dataset nor a folder.
    """
    converted = _settings_for(public.name, like)
    try:
        dataset, notes = _load(converted, data_root(root), like.sound is not None)
    except UnknownNameError as error:
        raise DataError(f"cloud.public.name: {error}") from error
    except DataError as error:
        raise DataError(f"cloud.public: {str(error).replace('data.name', 'cloud.public.name')}") from error
    log_notes([note.replace("data.skip_broken leaves them out", "they are left out") for note in notes])
    samples = dataset.train if len(dataset.train) else dataset.test
    own, expected = samples.inputs, like.train.inputs
    if own.shape[1:] != expected.shape[1:] or own.dtype != expected.dtype:
        raise DataError(
            f"cloud.public: the samples of {public.name} are {type_and_shape(own[:1])}, the experiment's "
            f"{type_and_shape(expected[:1])}; name samples of the same shape"
        )
    if public.limit is not None and public.limit < len(samples):
        drawn = torch.randperm(len(samples), generator=generator(seed))[: public.limit]
        samples = samples.select(drawn.sort().values)
    if len(samples) < 2:
        raise DataError(f"cloud.public: {len(samples)} sample cannot teach a model; at least 2 are needed")
    without_labels = torch.zeros_like(samples.targets)
    return Unlabelled(
        Samples(samples.inputs, without_labels, samples.positions), dataset.fingerprint, dataset.commit
    )


def _settings_for(name: str, like: Dataset) -> DataSettings:
    """Return the settings that convert samples to the form of a dataset."""
    if ":" in name and not name.startswith(PREFIX):  # a callable, which returns decoded examples
        return DataSettings(name=name)
    if like.sound is not None:
        return DataSettings(name=name, rate=like.sound.rate, seconds=like.sound.seconds, skip_broken=True)
    channels, height, width = like.shape
    if channels not in (1, 3):  # no image files
        return DataSettings(name=name)
    return DataSettings(
        name=name,
        size=(height, width),
        channels=1 if channels == 1 else 3,
        bits=like.bits,
        skip_broken=True,
    )


@functools.lru_cache(maxsize=2)
def _load(settings: DataSettings, root: Path | None, sound: bool) -> tuple[Dataset, tuple[str, ...]]:
    """Return the dataset, and the notes on it."""
    with hold_notes() as notes:
        folder = _unlabelled_folder(settings.name, root)
        dataset = load_dataset(settings, root) if folder is None else _read(folder, settings, sound)
    return dataset, tuple(notes)


def _unlabelled_folder(name: str, root: Path | None) -> Path | None:
    """Return the folder of files that ``name`` means; None if it means a dataset."""
    if name in registry.describe("data") or name.startswith(PREFIX):
        return None
    for folder in candidate_folders(name, root):
        if folder.is_dir():
            is_table = any(path.suffix.lower() == ".parquet" for path in walk_files(folder))
            return None if is_table else folder
    return None


def _read(folder: Path, settings: DataSettings, sound: bool) -> Dataset:
    """Read all images, or all sounds, below a folder; other files are left out."""

    def read(store: ArrayStore) -> Dataset:
        suffixes = logmel.SUFFIXES if sound else images.SUFFIXES
        everything = list(walk_files(folder))
        files = [path for path in everything if path.suffix.lower() in suffixes]
        kind: Kind = "sound" if sound else "image"
        if not files:
            raise DataError(f"{folder} contains no {kind}; data.name must be a folder with some")
        if len(files) < len(everything):
            logger.info(
                "%s: %d of %d files are no %ss and are left out",
                folder,
                len(everything) - len(files),
                len(everything),
                kind,
            )
        split = split_of_files(files, np.zeros(len(files), np.int64))
        # Without a training split, as for the cloud of a fleet: all files are of one split.
        return dataset_of(Encoded(kind, _NOTHING, split, ("unlabelled",)), settings, store)

    return read_once(settings, folder, "folder without labels", read)


_NOTHING = EncodedSplit(np.zeros(0, np.int64), lambda positions: iter(()))
