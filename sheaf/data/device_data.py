"""The data of a single device: a folder of files, or a file of tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sheaf.core.dataset import Dataset, FileReader, Samples
from sheaf.core.errors import DataError
from sheaf.data.array_store import ArrayStore
from sheaf.data.read_once import read_once
from sheaf.data.readers.any_folder import read_any_folder
from sheaf.data.readers.decode import decode
from sheaf.data.readers.encoded import abbreviate
from sheaf.data.sample_files import SampleFiles
from sheaf.data.settings import DataSettings
from sheaf.data.shared_samples import smaller_file
from sheaf.data.validation import check_samples

SPLITS = ("train", "test")


def load_device_data(settings: DataSettings, classes: tuple[str, ...]) -> Dataset:
    """Read one device's data and map its labels to the classes of the fleet.

    Args:
        settings: ``name`` is a folder, or a file that ``save_device_data`` wrote.
        classes: the K class names of the fleet. A device may lack some of them.

    Returns:
        A dataset without mean, standard deviation and fingerprint, which the fleet supplies.

    Raises:
        DataError: the data cannot be read, or has a class that is not among ``classes``.
    """
    path = Path(settings.name)
    if path.is_dir():
        own = read_once(settings, path, "folder of a device", partial(_read_folder, path, settings))
        read_file: FileReader | None = SampleFiles(
            lambda: read_any_folder(path, settings).train, len(own.train)
        )
        splits, names, sound = (own.train, own.test), own.classes, own.sound
    elif path.suffix == ".safetensors":
        (splits, names), sound = _read(path), None
        read_file = splits[0].read_file
    else:
        raise DataError(f"{path} must be a folder or a .safetensors file")
    dataset = Dataset(path.name, *splits, names, (), (), "", sound)
    for name, samples in zip(SPLITS, splits, strict=True):
        check_samples(f"{path}: the {name} split", samples, dataset)
    if not len(splits[0]):
        raise DataError(
            f"{path} has no training examples; put them into one folder per class, or add a train folder"
        )
    present = sorted(set(torch.cat([samples.labels for samples in splits]).tolist()))
    if unknown := [names[label] for label in present if names[label] not in classes]:
        raise DataError(
            f"{path} has classes that the fleet does not have: {abbreviate(unknown)}; "
            f"the fleet has {abbreviate(classes)}"
        )
    new_label = torch.tensor([classes.index(name) if name in classes else -1 for name in names])
    mapped_train, mapped_test = (Samples.of(samples.inputs, new_label[samples.labels]) for samples in splits)
    mapped_train = replace(mapped_train, read_file=read_file)
    return replace(dataset, train=mapped_train, test=mapped_test, classes=classes)


def _read_folder(path: Path, settings: DataSettings, store: ArrayStore) -> Dataset:
    """Read and decode a folder; the dataset has no mean, standard deviation and fingerprint."""
    encoded = read_any_folder(path, settings)
    decoded = decode(settings.name, encoded, settings, store)
    return Dataset(path.name, decoded.train, decoded.test, encoded.classes, (), (), "", decoded.sound)


def save_device_data(path: Path, train: Samples, test: Samples, classes: tuple[str, ...]) -> None:
    """Write one device's decoded data as safetensors, for ``load_device_data``.

    The files of training examples that a device can share are written beside them.
    """
    tensors = {}
    for name, samples in zip(SPLITS, (train, test), strict=True):
        tensors[f"{name}.inputs"] = samples.inputs[samples.positions]
        tensors[f"{name}.labels"] = samples.labels
    if train.read_file is not None:
        files = [smaller_file(train, position) for position in train.positions.tolist()]
        if any(files):
            tensors["train.files"] = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
            tensors["train.stops"] = torch.tensor([len(content) for content in files]).cumsum(0)
    save_file(tensors, path, {"classes": json.dumps(classes)})


def _read(path: Path) -> tuple[tuple[Samples, Samples], tuple[str, ...]]:
    """Return (both splits, class names) from a file of ``save_device_data``."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = tuple(str(name) for name in json.loads(file.metadata()["classes"]))
            train, test = (
                Samples.of(file.get_tensor(f"{name}.inputs"), file.get_tensor(f"{name}.labels"))
                for name in SPLITS
            )
            if "train.files" in set(file.keys()):
                files, stops = file.get_tensor("train.files"), file.get_tensor("train.stops").tolist()
                train = replace(train, read_file=partial(_file_in, files, stops))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged or does not contain a device's data: {error}") from error
    return (train, test), names


def _file_in(files: Tensor, stops: Sequence[int], position: int, limit: int) -> bytes:
    """Return the file of an example from the bytes of all files, which end at ``stops``."""
    start = stops[position - 1] if position else 0
    return files[start : stops[position]].numpy().tobytes()[:limit]
