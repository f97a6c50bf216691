"""A dataset from what ``[data]`` says: a known set, a folder, or a callable of the user's own."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sheaf.core import registry
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, UnknownNameError
from sheaf.data.readers.any_folder import read_any_folder
from sheaf.data.readers.decode import decode
from sheaf.data.readers.encoded import Encoded, check_classes, some, take_first
from sheaf.data.settings import DataSettings

__all__ = ["DataSettings", "load_dataset", "load_own", "save_own"]

CHUNK = 4096  # examples whose statistics are computed in float64 at a time


def load_dataset(settings: DataSettings, root: Path | None = None) -> Dataset:
    """Reads, checks and converts a dataset.

    Args:
        settings: what ``[data]`` says.
        root: the folder of ``--data``, under which known sets and relative folders are looked for.
            Unset: the environment variable ``SHEAF_DATA``, if any.

    Returns:
        inputs (N, C, H, W): uint8 for images, float32 log-mel spectrograms for sounds. The same
        settings give the same object as long as the process lives, so all sites can hold parts of
        one.

    Raises:
        DataError: it cannot be found or read, or does not make a dataset; one line says where and
            why.
        UnknownNameError: no set and no folder has that name.
    """
    root = root or (Path(os.environ["SHEAF_DATA"]) if os.environ.get("SHEAF_DATA") else None)
    return _load(settings, root)


@functools.lru_cache(maxsize=4)
def _load(settings: DataSettings, root: Path | None) -> Dataset:
    if re.fullmatch(r"[\w.]+:[\w.]+", settings.name):
        return _own(settings)
    encoded = _encoded(settings, root)
    check_classes(settings.name, encoded)
    train = encoded.train.select(take_first(encoded.train.labels, settings.limit))
    test = encoded.test.select(take_first(encoded.test.labels, settings.limit_test))
    encoded = replace(encoded, train=train, test=test)
    _check_limits(settings, encoded.classes)
    train_inputs, test_inputs, sound = decode(settings.name, encoded, settings)
    unchanged = settings.size is None and settings.channels in (None, train_inputs.shape[1])
    usual = unchanged and encoded.mean is not None and len(encoded.mean) == train_inputs.shape[1]
    dataset = Dataset(
        name=settings.name,
        train=Samples.of(train_inputs, torch.from_numpy(train.labels)),
        test=Samples.of(test_inputs, torch.from_numpy(test.labels)),
        classes=encoded.classes,
        mean=encoded.mean if usual and encoded.mean else (),
        std=encoded.std if usual and encoded.std else (),
        fingerprint="",
        sound=sound,
    )
    return _finished(dataset, settings)


def _encoded(settings: DataSettings, root: Path | None) -> Encoded:
    """A known set, or else a folder."""
    known = registry.describe("data")
    if settings.name in known:
        encoded: Encoded = registry.load("data", settings.name)(settings, root)
        return encoded
    folder = Path(settings.name).expanduser()
    places = [folder] if folder.is_absolute() or root is None else [folder, root / folder]
    for place in places:
        if place.is_dir():
            return read_any_folder(place, settings)
    if settings.name == folder.name:
        raise UnknownNameError("dataset or folder", settings.name, known)
    raise DataError(f"there is no folder {' nor '.join(str(place) for place in places)}")


def load_own(settings: DataSettings, classes: tuple[str, ...]) -> Dataset:
    """One device's own data, with labels that count among the ``classes`` of its whole fleet.

    A device need not have all of them. ``settings.name`` is a folder, or a file that ``save_own`` wrote.
    Mean, standard deviation and fingerprint are left open: they are the fleet's.

    Raises:
        DataError: it cannot be read, or has a class that the fleet does not know.
    """
    path = Path(settings.name)
    if path.is_dir():
        encoded = read_any_folder(path, settings)
        train, test, _ = decode(settings.name, encoded, settings)
        names = encoded.classes
        labels = torch.from_numpy(encoded.train.labels), torch.from_numpy(encoded.test.labels)
    elif path.suffix == ".safetensors":
        (train, test), labels, names = _read_own(path)
    else:
        raise DataError(f"{path} is neither a folder nor a .safetensors file")
    parts = Samples.of(train, labels[0]), Samples.of(test, labels[1])
    dataset = Dataset(path.name, *parts, names, (), (), "")
    for which, samples in (("train", parts[0]), ("test", parts[1])):
        _check_form(f"{path}: the {which} part", samples, dataset)
    present = sorted(set(torch.cat(labels).tolist()))
    if foreign := [names[label] for label in present if names[label] not in classes]:
        raise DataError(f"{path} has a class that the fleet does not know: {some(foreign)}")
    number = torch.tensor([classes.index(name) if name in classes else -1 for name in names])
    own_train, own_test = (Samples.of(samples.inputs, number[samples.labels]) for samples in parts)
    return replace(dataset, train=own_train, test=own_test, classes=classes)


def save_own(path: Path, train: Samples, test: Samples, classes: tuple[str, ...]) -> None:
    """Writes one device's part of a dataset as it lies in memory, for ``load_own``."""
    tensors = {}
    for which, samples in (("train", train), ("test", test)):
        tensors[f"{which}.inputs"] = samples.inputs[samples.positions]
        tensors[f"{which}.labels"] = samples.labels
    save_file(tensors, path, {"classes": json.dumps(classes)})


def _read_own(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]:
    """(Inputs of both parts, labels of both, class names) of a file that ``save_own`` wrote."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = tuple(str(name) for name in json.loads(file.metadata()["classes"]))
            train, test = (
                (file.get_tensor(f"{which}.inputs"), file.get_tensor(f"{which}.labels"))
                for which in ("train", "test")
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged or holds no device's data: {error}") from error
    return (train[0], test[0]), (train[1], test[1]), names


def _check_limits(settings: DataSettings, classes: tuple[str, ...]) -> None:
    for key, limit in (("limit", settings.limit), ("limit_test", settings.limit_test)):
        if limit is not None and limit < len(classes):
            raise DataError(
                f"data.{key} = {limit} leaves classes without an example: "
                f"{settings.name} has {len(classes)} classes"
            )


def _own(settings: DataSettings) -> Dataset:
    """What a user's callable returns, checked; its fingerprint is always computed anew."""
    make = registry.load("data", settings.name)
    dataset = make() if callable(make) else make
    name = settings.name
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} must return a sheaf.Dataset and returned a {type(dataset).__name__}")
    if settings.size or settings.channels or settings.rate:
        raise DataError(f"data.size, data.channels and data.rate do not apply to {name}: it comes decoded")
    for part, samples in (("train", dataset.train), ("test", dataset.test)):
        _check_own(f"{name}: the {part} part", samples, dataset)
    _check_limits(settings, dataset.classes)
    train = dataset.train.select(torch.from_numpy(take_first(dataset.train.labels.numpy(), settings.limit)))
    test = dataset.test.select(torch.from_numpy(take_first(dataset.test.labels.numpy(), settings.limit_test)))
    return _finished(
        replace(dataset, name=name, train=Samples.concat([train]), test=Samples.concat([test])), settings
    )


def _check_own(which: str, samples: Samples, dataset: Dataset) -> None:
    _check_form(which, samples, dataset)
    absent = (samples.counts(len(dataset.classes)) == 0).nonzero().flatten().tolist()
    if absent:
        raise DataError(f"{which} has no example of class {some(dataset.classes[i] for i in absent)}")


def _check_form(which: str, samples: Samples, dataset: Dataset) -> None:
    inputs, targets = samples.inputs, samples.targets
    if inputs.dtype not in (torch.uint8, torch.float32) or inputs.ndim != 4:
        raise DataError(f"{which} must be uint8 or float32 of shape (N, C, H, W), not {_shape(inputs)}")
    if inputs.shape[1:] != dataset.train.inputs.shape[1:] or inputs.dtype != dataset.train.inputs.dtype:
        raise DataError(f"{which} is {_shape(inputs)}, and the train part {_shape(dataset.train.inputs)}")
    if targets.dtype != torch.int64 or targets.shape != inputs.shape[:1]:
        raise DataError(f"{which} must have int64 targets of shape ({len(inputs)},), not {_shape(targets)}")
    positions = samples.positions
    if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(inputs):
        raise DataError(f"{which} has positions outside of 0 to {len(inputs) - 1}")
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise DataError(f"{which} holds inputs that are not finite")
    if len(samples) and not (
        0 <= int(samples.labels.min()) <= int(samples.labels.max()) < len(dataset.classes)
    ):
        raise DataError(f"{which} has labels outside of 0 to {len(dataset.classes) - 1}")


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _finished(dataset: Dataset, settings: DataSettings) -> Dataset:
    """With mean and standard deviation (set, usual or computed, in this order) and fingerprint."""
    channels = dataset.shape[0]
    mean, std = settings.mean or dataset.mean, settings.std or dataset.std
    if not mean or not std:
        computed = _statistics(dataset.train.inputs)
        mean, std = mean or computed[0], std or computed[1]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise DataError(f"data.{key} has {len(values)} values and {dataset.name} has {channels} channels")
    return replace(dataset, mean=mean, std=std, fingerprint=_fingerprint(dataset))


def _statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (N, C, H, W), uint8 scaled to 0..1.

    A channel that never varies has standard deviation 1: dividing by it is to do no harm.
    """
    scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
    count = inputs.numel() // inputs.shape[1]
    chunks = [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(0) / count
    squares = [(chunk.double() - mean.view(-1, 1, 1)).square().sum(dim=(0, 2, 3)) for chunk in chunks]
    std = torch.stack(squares).sum(0).div(count).sqrt()
    std = torch.where(std > 0, std / scale, 1.0)
    return tuple((mean / scale).tolist()), tuple(std.tolist())


def _fingerprint(dataset: Dataset) -> str:
    """SHA-256 of all inputs and labels, with their types and shapes."""
    digest = hashlib.sha256()
    for samples in (dataset.train, dataset.test):
        for tensor in (samples.inputs, samples.targets):
            digest.update(_shape(tensor).encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
