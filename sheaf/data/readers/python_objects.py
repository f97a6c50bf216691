"""Reading of data that a Python program holds: arrays, a torch ``Dataset``, a Hugging Face table.

Neither torchvision nor ``datasets`` is imported: a table is recognised by ``features`` and ``column_names``,
a dataset by its length and its items.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, first_line
from sheaf.data.class_balance import draw_test_split
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind, abbreviate
from sheaf.data.settings import DataSettings

logger = logging.getLogger("sheaf")

TEST_NAMES = ("test", "validation", "valid", "val", "dev")
"""Names of a mapping's test split, in the order of precedence."""

FILES = {"Image": "image", "Audio": "sound"}
"""Types of a table's columns of files -> the kind of their examples."""

FORMS = (
    "give a sheaf.Dataset, a torch Dataset, a Hugging Face table, (inputs, labels), (train, test) of these, "
    'or {"train": …, "test": …}'
)

Content = Tensor | list[tuple[str, bytes]]
"""The examples of a split: tensors in one stack, or encoded files with their locations."""


@dataclass(frozen=True)
class _Split:
    """The examples of a split.

    Attributes:
        kind: of encoded files; None for tensors.
        inputs: the examples.
        labels: (N,) of one value each: an integer, or a class name.
        classes: the class names, if the object has them.
    """

    kind: Kind | None
    inputs: Content
    labels: npt.NDArray[Any]
    classes: tuple[str, ...] | None


def read_object(data: Any, settings: DataSettings) -> Dataset | Encoded:
    """Read an object, before limits and checks.

    Without a test split, ``settings.test_share`` of each class, drawn with a fixed seed, is the test split.

    Args:
        data: see ``FORMS``. Examples are tensors or arrays (C, H, W) or (H, W), uint8 or floating-point, or
            Pillow images; of a table, a column of images, sounds or arrays. Labels are integers from 0, or
            strings, which become classes in sorted order.
        settings: ``label`` and ``input`` choose columns of a table.

    Returns:
        A dataset of tensors, or encoded images or sounds.

    Raises:
        DataError: the object has another form, or its types or shapes are wrong.
    """
    if isinstance(data, Dataset):
        return data
    train_data, test_data = _train_and_test(data)
    train = _read(train_data, settings, "train")
    test = None if test_data is None else _read(test_data, settings, "test")
    numbers, classes = _classes([train] if test is None else [train, test])
    train_numbers, test_numbers = numbers[: len(train.labels)], numbers[len(train.labels) :]
    if test is None:
        is_test = draw_test_split(train_numbers, settings.test_share)
        logger.info(
            "the data has no test split: %d of %d examples, drawn from each class, are the test split",
            is_test.sum(),
            len(is_test),
        )
        chosen = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        train_numbers, test_numbers = train_numbers[chosen[0]], train_numbers[chosen[1]]
        train, test = _select(train, chosen[0]), _select(train, chosen[1])
    if isinstance(train.inputs, Tensor) and isinstance(test.inputs, Tensor):
        train_samples = Samples.of(train.inputs, torch.from_numpy(train_numbers))
        test_samples = Samples.of(test.inputs, torch.from_numpy(test_numbers))
        return Dataset("", train_samples, test_samples, classes, (), (), "")
    if isinstance(train.inputs, Tensor) or isinstance(test.inputs, Tensor) or train.kind != test.kind:
        raise DataError("the examples of the train and the test split are of different kinds; give one kind")
    assert train.kind is not None
    return Encoded(train.kind, _encoded(train, train_numbers), _encoded(test, test_numbers), classes)


def object_label(data: Any) -> str:
    """Return a readable name of the data: a dataset's own, or its type's."""
    if isinstance(data, Dataset):
        return data.name.rpartition(":")[2]
    first = next(iter(data.values()), data) if isinstance(data, Mapping) else data
    if isinstance(first, tuple | list):
        first = first[0] if first else first
    builder = getattr(getattr(first, "info", None), "dataset_name", None)
    while type(first).__name__ == "Subset" and hasattr(first, "dataset"):
        first = first.dataset
    if isinstance(first, Tensor | np.ndarray | tuple | list):
        return "arrays"
    return str(builder or type(first).__name__)


def _train_and_test(data: Any) -> tuple[Any, Any]:
    """Return the train and the test split, None if there is only one split."""
    if isinstance(data, Mapping):
        test = next((name for name in TEST_NAMES if name in data), None)
        if "train" not in data:
            raise DataError(f"the data has no split 'train', only {abbreviate(data)}; {FORMS}")
        unused = [name for name in data if name not in ("train", test)]
        if unused:
            logger.info("the splits %s of the data are left out", abbreviate(unused))
        return data["train"], None if test is None else data[test]
    if isinstance(data, tuple | list) and len(data) == 2 and not _are_labels(data[1]):
        return data[0], data[1]
    return data, None


def _are_labels(value: Any) -> bool:
    """Return whether ``value`` is the second member of (inputs, labels)."""
    if isinstance(value, list):
        return not value or isinstance(value[0], int | str | np.integer)
    return isinstance(value, Tensor | np.ndarray)


def _read(data: Any, settings: DataSettings, split: str) -> _Split:
    if isinstance(data, tuple | list) and len(data) == 2 and _are_labels(data[1]):
        return _Split(None, _stack(data[0], split), _one_dimension(data[1], split), None)
    if hasattr(data, "features") and hasattr(data, "column_names") and hasattr(data, "__len__"):
        return _read_table(data, settings, split)
    if settings.label or settings.input:
        raise DataError(
            f"data.label and data.input choose columns of a table, but the data are {type(data).__name__}; "
            "remove them"
        )
    if not hasattr(data, "__getitem__") or isinstance(data, type | str):
        raise DataError(f"{type(data).__name__} is not data that sheaf can read; {FORMS}")
    if not hasattr(data, "__len__"):
        raise DataError(
            f"{type(data).__name__} has no length; give a map-style dataset with len() and [index]"
        )
    return _read_items(data, split)


def _read_items(data: Any, split: str) -> _Split:
    """Read a torch dataset: its items are pairs of example and label."""
    if not len(data):
        raise DataError(f"the {split} split has no examples")
    source = data
    while hasattr(source, "dataset"):  # of a torch Subset
        source = source.dataset
    if getattr(source, "transform", None) is not None:
        logger.info("the transform of %s is applied once to each example", type(source).__name__)
    inputs: list[Any] = []
    labels: list[Any] = []
    for number in range(len(data)):
        try:
            item = _with_png(data[number])
        except Exception as error:  # a user's dataset may raise any
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise DataError(f"example {number} of the {split} split cannot be read: {reason}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"example {number} of the {split} split is a {type(item).__name__}; it must be a pair "
                "(input, label)"
            )
        inputs.append(item[0])
        labels.append(item[1])
    names = getattr(source, "classes", None)
    classes = None if names is None else tuple(map(str, names))
    if isinstance(inputs[0], bytes):
        if not all(isinstance(content, bytes) for content in inputs):
            raise DataError(f"the {split} split mixes images and tensors; give one kind")
        located = [(f"image {number} of the {split} split", content) for number, content in enumerate(inputs)]
        return _Split("image", located, _one_dimension(labels, split), classes)
    return _Split(None, _stack(inputs, split), _one_dimension(labels, split), classes)


def _read_table(data: Any, settings: DataSettings, split: str) -> _Split:
    """Read a Hugging Face table, without any format or transform that is set on it."""
    if not len(data):
        raise DataError(f"the {split} split has no examples")
    if (getattr(data, "format", None) or {}).get("type") == "custom":
        logger.info("the transform of the table is not applied")
    table = data.with_format(None)
    features = table.features
    types = {name: type(feature).__name__ for name, feature in features.items()}
    columns = ", ".join(f"{name} ({kind})" for name, kind in types.items())
    labels = [settings.label] if settings.label else [n for n in types if n == "label"]
    labels = labels or [name for name, kind in types.items() if kind == "ClassLabel"]
    if len(labels) != 1 or labels[0] not in types:
        raise DataError(
            f"the table has {'no' if len(labels) != 1 else f'no column {labels[0]!r} as'} label column; "
            f"name it in data.label; its columns: {columns}"
        )
    inputs = [settings.input] if settings.input else [name for name, kind in types.items() if kind in FILES]
    inputs = inputs or [name for name, kind in types.items() if kind.startswith("Array")]
    if len(inputs) != 1 or inputs[0] not in types:
        raise DataError(
            f"the table has {'several columns' if len(inputs) > 1 else 'no column'} of images, sounds or "
            f"arrays; name one in data.input; its columns: {columns}"
        )
    (label,), (column,) = labels, inputs
    values = _one_dimension(_column(table, label), split)
    names = getattr(features[label], "names", None)
    classes = None if names is None else tuple(map(str, names))
    kind = FILES.get(types[column])
    if kind is None:
        return _Split(None, _stack(list(_column(table, column)), split), values, classes)
    located = []
    encoded = table.select_columns([column]).cast_column(column, type(features[column])(decode=False))
    for number, row in enumerate(encoded):
        location = f"row {number} of the {split} split"
        content, path = row[column]["bytes"], row[column]["path"]
        if content is None:
            try:
                content = Path(path).read_bytes()
            except (OSError, TypeError) as error:
                raise DataError(
                    f"{location}: its file {path!r} cannot be read: {first_line(error)}"
                ) from error
        located.append((location, content))
    return _Split("image" if kind == "image" else "sound", located, values, classes)


def _column(table: Any, name: str) -> Any:
    return table.select_columns([name]).with_format("numpy")[:][name]


def _stack(examples: Any, split: str) -> Tensor:
    """Return (N, C, H, W), uint8 or float32."""
    try:
        if isinstance(examples, list) and examples and isinstance(examples[0], Tensor):
            inputs = torch.stack(examples)
        else:
            inputs = torch.as_tensor(np.asarray(examples) if isinstance(examples, list) else examples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the examples of the {split} split cannot be stacked: {first_line(error)}; all must "
            "have one shape"
        ) from error
    if inputs.dtype in (torch.float64, torch.float16, torch.bfloat16):
        inputs = inputs.float()
    if inputs.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            f"the examples of the {split} split are {str(inputs.dtype).removeprefix('torch.')}; convert them "
            "to uint8 (0 to 255, images) or float32"
        )
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.ndim != 4:
        shape = tuple(inputs.shape[1:])
        raise DataError(
            f"an example of the {split} split has the shape {shape}; it must be (C, H, W) or (H, W): reshape "
            "F features to (1, 1, F)"
        )
    if isinstance(examples, np.ndarray) and inputs.shape[3] in (1, 3) and inputs.shape[1] not in (1, 3):
        logger.info("the arrays of the %s split are read as (rows, columns, channels)", split)
        inputs = inputs.permute(0, 3, 1, 2)
    return inputs.contiguous()


def _one_dimension(labels: Any, split: str) -> npt.NDArray[Any]:
    """Return the labels as (N,) int64 or strings."""
    try:
        values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    except ValueError as error:
        raise DataError(f"the labels of the {split} split differ in shape; give one per example") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        shape = tuple(values.shape[1:])
        raise DataError(f"a label of the {split} split has the shape {shape}; give one integer per example")
    if values.dtype.kind in "US" or all(isinstance(value, str) for value in values[:1].tolist()):
        return values.astype(str)
    if values.dtype.kind not in "iub":
        raise DataError(
            f"the labels of the {split} split are {values.dtype}; they must be integers from 0, or strings"
        )
    return values.astype(np.int64)


def _classes(splits: list[_Split]) -> tuple[Ints, tuple[str, ...]]:
    """Return the labels of all splits as numbers, and the class names."""
    names = {split.classes for split in splits}
    if len(names) > 1:
        raise DataError("the train and the test split have different class names; give the same to both")
    for split, name in zip(splits, ("train", "test"), strict=False):
        if not len(split.labels):
            raise DataError(f"the {name} split has no examples")
        if len(split.labels) != len(split.inputs):
            raise DataError(
                f"the {name} split has {len(split.inputs):,} examples, but {len(split.labels):,} labels"
            )
    kinds = {split.labels.dtype.kind for split in splits}
    if len(kinds) > 1:
        raise DataError("the labels are integers in one split and strings in the other; give one kind")
    values = np.concatenate([split.labels for split in splits])
    (known,) = names
    if kinds == {"U"}:
        found, numbers = np.unique(values, return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, found))
    count = len(known) if known else int(values.max(initial=0)) + 1
    if len(values) and not 0 <= values.min() <= values.max() < count:
        raise DataError(
            f"the labels range from {values.min()} to {values.max()}; for {count} classes they must be from "
            f"0 to {count - 1}"
        )
    return values, known or tuple(map(str, range(count)))


def _select(split: _Split, positions: Ints) -> _Split:
    inputs = split.inputs
    if isinstance(inputs, Tensor):
        return replace(split, inputs=inputs[torch.from_numpy(positions)])
    return replace(split, inputs=[inputs[position] for position in positions])


def _encoded(split: _Split, labels: Ints) -> EncodedSplit:
    def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
        for position in positions.tolist():
            location, content = split.inputs[position]
            yield location, content

    return EncodedSplit(labels, items)


def _with_png(item: Any) -> Any:
    """Return an item with its Pillow image as a lossless file, so that it is converted as a file is."""
    if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], Image.Image):
        return item
    image, file = item[0], io.BytesIO()
    (image.convert("RGB") if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else image).save(file, "PNG")
    return file.getvalue(), item[1]
