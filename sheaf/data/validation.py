"""Checks of a decoded dataset that a user supplies."""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import abbreviate
from sheaf.data.settings import DataSettings

PART = 512  # examples that are checked at a time


def check_samples(name: str, samples: Samples, dataset: Dataset) -> None:
    """Check the types, shapes and values of one split of ``dataset``.

    Args:
        name: of the split, for messages.
        samples: the split.
        dataset: gives the classes, and the shape and type of the training inputs.

    Raises:
        DataError: a tensor has another type or shape, or a value is out of range.
    """
    inputs, targets, positions = samples.inputs, samples.targets, samples.positions
    if inputs.dtype not in (torch.uint8, torch.float32) or inputs.ndim != 4:
        raise DataError(
            f"{name}: inputs must be uint8 or float32 of shape (N, C, H, W), not {type_and_shape(inputs)}"
        )
    train = dataset.train.inputs
    if inputs.shape[1:] != train.shape[1:] or inputs.dtype != train.dtype:
        raise DataError(
            f"{name}: inputs are {type_and_shape(inputs)}, but the training inputs {type_and_shape(train)}; "
            "both must have one type and one shape (C, H, W)"
        )
    if targets.dtype != torch.int64 or targets.shape != inputs.shape[:1]:
        raise DataError(
            f"{name}: targets must be int64 of shape ({len(inputs)},), not {type_and_shape(targets)}"
        )
    _check_range(f"{name}: positions", positions, len(inputs))
    if inputs.is_floating_point() and not all(
        torch.isfinite(part).all() for part in torch.split(inputs, PART)
    ):
        raise DataError(f"{name}: inputs contain NaN or infinity; they must be finite")
    _check_range(f"{name}: labels", samples.labels, len(dataset.classes))


def check_every_class(name: str, samples: Samples, dataset: Dataset) -> None:
    """Check that ``samples`` have an example of every class.

    Raises:
        DataError: a class has none.
    """
    empty = (samples.counts(len(dataset.classes)) == 0).nonzero().flatten().tolist()
    if empty:
        raise DataError(f"{name} has no example of class {abbreviate(dataset.classes[i] for i in empty)}")


def check_limits(settings: DataSettings, classes: tuple[str, ...]) -> None:
    """Check that the limits leave an example of every class.

    Raises:
        DataError: a limit is below the number of classes.
    """
    for key, limit in (("limit", settings.limit), ("limit_test", settings.limit_test)):
        if limit is not None and limit < len(classes):
            raise DataError(
                f"data.{key} = {limit} leaves classes without an example; "
                f"{settings.name} has {len(classes)} classes, so it must be at least {len(classes)}"
            )


def type_and_shape(tensor: Tensor) -> str:
    """Return ``uint8 (60000, 1, 28, 28)``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _check_range(name: str, values: Tensor, stop: int) -> None:
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < stop:
        raise DataError(
            f"{name} must be 0 to {stop - 1}, and range from {int(values.min())} to {int(values.max())}"
        )
