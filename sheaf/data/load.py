"""Loading of a dataset as ``[data]`` describes it: a known set, a folder, or a user's callable."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sheaf.core import objects, registry
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, UnknownNameError
from sheaf.core.notes import hold_notes, log_notes
from sheaf.core.optional_imports import needs
from sheaf.core.progress_bar import bar
from sheaf.data.array_store import ArrayStore, MemoryStore
from sheaf.data.channel_statistics import channel_statistics
from sheaf.data.class_balance import first_of_each_class
from sheaf.data.read_once import read_once
from sheaf.data.readers.any_folder import read_any_folder
from sheaf.data.readers.decode import Broken, Decoded, decode, describe_broken
from sheaf.data.readers.encoded import Encoded, EncodedSplit, check_classes
from sheaf.data.readers.folder_layout import is_utf8
from sheaf.data.readers.hub_repository import PREFIX, find_hub_files
from sheaf.data.readers.huggingface import HubSet
from sheaf.data.readers.label_table import SUFFIXES as TABLE_SUFFIXES
from sheaf.data.readers.python_objects import read_object
from sheaf.data.sample_files import SampleFiles
from sheaf.data.settings import DataSettings
from sheaf.data.validation import check_every_class, check_limits, check_samples, type_and_shape

logger = logging.getLogger("sheaf")

FOLDER = "folder"
"""Describes the reader of a user's folder, whose examples can be files."""
HASHED = 2048  # examples that are hashed at a time
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar"})


def load_dataset(settings: DataSettings, root: Path | None = None) -> Dataset:
    """Read, check and convert a dataset.

    The last four datasets are cached: equal arguments return the same object, so all sites of a process
    share its tensors. The notes on a dataset are logged at each call.

    Args:
        settings: the table ``[data]``.
        root: the folder of ``--data``, which holds known sets and is the base of relative folders.
            Unset: the environment variable ``SHEAF_DATA``, if it is set.

    Returns:
        A dataset with inputs (N, C, H, W): uint8 for images, float32 log-mel spectrograms for sounds.

    Raises:
        DataError: the dataset cannot be found or read, or is inconsistent.
        UnknownNameError: the name is neither a known set nor a folder.
    """
    dataset, notes = _load_with_notes(settings, data_root(root))
    log_notes(notes)
    return dataset


def data_root(root: Path | None) -> Path | None:
    """Return the folder of ``--data``; if it is not given, that of the variable ``SHEAF_DATA``, or None."""
    return root or (Path(os.environ["SHEAF_DATA"]) if os.environ.get("SHEAF_DATA") else None)


def convert_object(data: Any, settings: DataSettings) -> Dataset:
    """Convert data that a Python program holds (``readers/python_objects.py``).

    Args:
        data: the object.
        settings: the table ``[data]``. Its limits do not apply.

    Raises:
        DataError: it is no data, or types, shapes or labels are wrong.
    """
    settings = replace(settings, limit=None, limit_test=None)
    content = read_object(data, settings)
    if isinstance(content, Encoded):
        return dataset_of(content, settings)
    if settings.size or settings.channels or settings.rate:
        raise DataError(
            "data.size, data.channels and data.rate convert images and sounds, but the data are tensors; "
            "remove them"
        )
    return _checked(content, settings)


@functools.lru_cache(maxsize=4)
def _load_with_notes(settings: DataSettings, root: Path | None) -> tuple[Dataset, tuple[str, ...]]:
    with hold_notes() as notes:
        dataset = _load(settings, root)
    return dataset, tuple(notes)


def _load(settings: DataSettings, root: Path | None) -> Dataset:
    if not is_utf8(settings.name):
        raise DataError(f"data.name = {settings.name!a} is not UTF-8; rename the folder")
    if re.fullmatch(r"(?!hf:)[\w.]+:[\w.]+", settings.name):
        for folder in candidate_folders(settings.name, root):
            if folder.is_dir():
                raise DataError(
                    f"data.name = {settings.name!r} means package.module:callable, but is also a folder; "
                    f"set data.name = {os.path.join(os.curdir, folder)!r} to read the folder"
                )
        return _load_from_callable(settings)
    source = _find_source(settings, root)
    as_read = replace(settings, mean=None, std=None)

    def read(store: ArrayStore) -> Dataset:
        return dataset_of(source.read(), as_read, store)

    if source.folder is None:
        dataset = read(MemoryStore())
    else:
        dataset = read_once(as_read, source.folder, source.reader, read)
    if source.reader == FOLDER:
        files = SampleFiles(lambda: _select(source.read(), as_read).train, len(dataset.train))
        dataset = replace(dataset, train=replace(dataset.train, read_file=files))
    return replace(_normalised(dataset, settings), commit=source.commit)


def dataset_of(encoded: Encoded, settings: DataSettings, store: ArrayStore | None = None) -> Dataset:
    """Decode the examples into the store, check the classes and add the statistics."""
    check_classes(settings.name, encoded)
    check_limits(settings, encoded.classes)
    decoded = _decode(encoded, settings, store)
    channels = decoded.train.inputs.shape[1]
    # The published statistics hold for the published form of the images only.
    converted = settings.size is not None or settings.channels not in (None, channels)
    published = not converted and encoded.mean is not None and len(encoded.mean) == channels
    dataset = Dataset(
        name=settings.name,
        train=decoded.train,
        test=decoded.test,
        classes=encoded.classes,
        mean=encoded.mean if published and encoded.mean else (),
        std=encoded.std if published and encoded.std else (),
        fingerprint="",
        sound=decoded.sound,
        bits=decoded.bits,
    )
    for split, samples in (("train", dataset.train), ("test", dataset.test)):
        if split == "train" and not len(encoded.train.labels):
            continue
        try:
            check_every_class(f"{settings.name}: the {split} split", samples, dataset)
        except DataError as error:
            raise DataError(
                f"{error} left, because data.skip_broken leaves its files out; mend some of them"
            ) from error
    return _with_statistics(dataset, settings)


def _decode(encoded: Encoded, settings: DataSettings, store: ArrayStore | None) -> Decoded:
    """Decode the examples within the limits; those that cannot be read are left out before the split."""
    first = selected = _select(encoded, settings)
    broken: Broken = {}
    while True:
        with hold_notes() as notes:
            decoded = decode(settings.name, selected, settings, store)
        broken |= decoded.broken
        if not decoded.broken or encoded.split_without is None:
            break
        selected = _select(encoded.split_without(frozenset(broken)), settings)
        # Equal numbers of each class are equal splits: a file's name decides its place.
        if all(map(_are_alike, (selected.train, selected.test), (decoded.train, decoded.test))):
            break
    if broken:
        logger.info("%s; data.skip_broken leaves them out", describe_broken(settings.name, broken, first))
    log_notes(notes)
    return decoded


def _are_alike(encoded: EncodedSplit, decoded: Samples) -> bool:
    """Return whether two splits have equal numbers of examples of each class."""
    return np.array_equal(np.sort(encoded.labels), np.sort(decoded.labels.numpy()))


def _select(encoded: Encoded, settings: DataSettings) -> Encoded:
    train = encoded.train.select(first_of_each_class(encoded.train.labels, settings.limit))
    test = encoded.test.select(first_of_each_class(encoded.test.labels, settings.limit_test))
    return replace(encoded, train=train, test=test)


@dataclass(frozen=True)
class Source:
    """Encoded files, before they are read.

    Attributes:
        folder: of the files; None if a library contains them.
        reader: describes ``read``: another description means that other examples may be read.
        read: reads them.
        commit: hash of the commit of a dataset of the Hub; None for others.
    """

    folder: Path | None
    reader: str
    read: Callable[[], Encoded]
    commit: str | None = None


def _find_source(settings: DataSettings, root: Path | None) -> Source:
    """Return the source that ``data.name`` names: the Hub, a known set, or a folder."""
    if settings.name.startswith(PREFIX):
        return _hub_source(settings)
    if settings.config or settings.splits:
        raise DataError(
            f"data.config and data.splits are for datasets hf:OWNER/NAME, not {settings.name}; remove them"
        )
    known = registry.describe("data")
    if settings.name in known:
        if settings.labels:
            raise DataError(f"data.labels is for the files of a folder, not {settings.name}; remove it")
        make = registry.load("data", settings.name)
        if isinstance(make, HubSet):
            folder = make.find(root)
            return Source(folder, repr(make), partial(make.read, folder, settings))
        return Source(None, settings.name, partial(make, settings, root))
    candidates = candidate_folders(settings.name, root)
    for candidate in candidates:
        if candidate.is_dir():
            return Source(candidate, FOLDER, partial(read_any_folder, candidate, settings))
        if candidate.is_file():
            raise DataError(f"{candidate} is a file, but data.name must be a folder; {_remedy(candidate)}")
    if settings.name == candidates[0].name:
        raise UnknownNameError("dataset or folder", settings.name, known)
    raise DataError(
        f"no folder {' or '.join(map(str, candidates))}; "
        "data.name must be absolute, or relative to the working directory or to --data"
    )


def _hub_source(settings: DataSettings) -> Source:
    with needs("parquet"):
        from sheaf.data.readers.parquet import read_splits
    found = find_hub_files(settings.name, settings.config, settings.splits)
    read = partial(
        read_splits,
        found.folder,
        found.splits,
        label=settings.label,
        input_column=settings.input,
        test_fraction=settings.test_share,
    )
    return Source(found.folder, f"hf:{found.repo}@{found.commit} {found.config}", read, found.commit)


def candidate_folders(name: str, root: Path | None) -> list[Path]:
    """Return the paths that ``name`` can mean, in the order of precedence."""
    folder = Path(name).expanduser()
    return [folder] if folder.is_absolute() or root is None else [folder, root / folder]


def _remedy(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix in ARCHIVES:
        return "unpack the archive and name the folder"
    if suffix == ".parquet":
        return f"name the folder of the shards: {str(file.parent)!r}"
    if suffix in TABLE_SUFFIXES:
        return (
            f"name the folder of its files, such as {str(file.parent)!r}, and set data.labels = {str(file)!r}"
        )
    return "put its examples into one folder per class, or read it in a package.module:callable"


def _load_from_callable(settings: DataSettings) -> Dataset:
    """Call a user's ``package.module:callable`` and check the dataset that it returns.

    Its own fingerprint is ignored and computed anew.
    """
    name = settings.name
    make = registry.load("data", name)
    dataset = make() if callable(make) else make
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} must return a sheaf.Dataset, not {type(dataset).__name__}")
    columns = settings.labels or settings.label or settings.input
    converts = settings.size or settings.channels or settings.rate or columns
    if converts and not objects.is_object(name):  # which these settings have converted already
        raise DataError(
            "data.size, data.channels, data.rate, data.labels, data.label and data.input do not apply to "
            f"{name}, which returns decoded examples; remove them"
        )
    return _checked(dataset, settings)


def _checked(dataset: Dataset, settings: DataSettings) -> Dataset:
    """Check a dataset of tensors, apply the limits and add the statistics."""
    name = settings.name
    for split, samples in (("train", dataset.train), ("test", dataset.test)):
        check_samples(f"{name}: the {split} split", samples, dataset)
        check_every_class(f"{name}: the {split} split", samples, dataset)
    check_limits(settings, dataset.classes)
    train = _limited(dataset.train, settings.limit)
    test = _limited(dataset.test, settings.limit_test)
    return _with_statistics(replace(dataset, name=name, train=train, test=test), settings)


def _limited(samples: Samples, limit: int | None) -> Samples:
    """Copy at most ``limit`` of the samples into tensors of their own."""
    positions = torch.from_numpy(first_of_each_class(samples.labels.numpy(), limit))
    return Samples.concat([samples.select(positions)])


def _with_statistics(dataset: Dataset, settings: DataSettings) -> Dataset:
    """Add the fingerprint, the mean and the standard deviation.

    The two are those of the settings, else the published ones, else computed on the training examples, or on
    the test examples if there are no others.
    """
    dataset = _normalised(dataset, settings)
    mean, std = dataset.mean, dataset.std
    if not mean or not std:
        split = dataset.train if len(dataset.train) else dataset.test
        computed = channel_statistics(split.inputs)
        mean, std = mean or computed[0], std or computed[1]
    return replace(dataset, mean=mean, std=std, fingerprint=_fingerprint(dataset))


def _normalised(dataset: Dataset, settings: DataSettings) -> Dataset:
    """Return the dataset with the mean and the standard deviation of the settings, where these are set."""
    channels = dataset.shape[0]
    mean, std = settings.mean or dataset.mean, settings.std or dataset.std
    for key, values in (("mean", mean), ("std", std)):
        if values and len(values) != channels:
            raise DataError(
                f"data.{key} has {len(values)} values, but {dataset.name} has {channels} channels; "
                "give one value per channel"
            )
    return replace(dataset, mean=mean, std=std)


def _fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 of all inputs and labels, with their types and shapes."""
    digest = hashlib.sha256()
    tensors = [(samples.inputs, samples.targets) for samples in (dataset.train, dataset.test)]
    with bar(f"hashing {dataset.name}", sum(len(tensor) for pair in tensors for tensor in pair)) as advance:
        for tensor in (tensor for pair in tensors for tensor in pair):
            digest.update(type_and_shape(tensor).encode())
            for part in torch.split(tensor, HASHED):
                digest.update(part.contiguous().numpy().data)
                advance(len(part))
    return digest.hexdigest()
