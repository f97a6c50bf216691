"""Torch datasets, Hugging Face tables and arrays become datasets; mistakes are one line."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from support import one_line
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, Subset, TensorDataset, random_split

from sheaf.core.dataset import Dataset
from sheaf.core.errors import DataError
from sheaf.data.load import convert_object
from sheaf.data.settings import DataSettings

DIGITS = load_digits()
PIXELS = np.rint(DIGITS.images[:200] * (255 / 16)).astype(np.uint8)
LABELS = DIGITS.target[:200]


def convert(data: Any, **settings: Any) -> Dataset:
    return convert_object(data, DataSettings(name="object:x", **settings))


class Pictures(TorchDataset):
    """Pillow images with class names, as in torchvision."""

    classes = tuple("abcdefghij")
    transform = None

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[index]), int(LABELS[index])


def as_tensors() -> TensorDataset:
    return TensorDataset(torch.from_numpy(PIXELS)[:, None], torch.from_numpy(LABELS))


@pytest.fixture(scope="module")
def table() -> Any:
    """A Hugging Face table of images with a class label."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(Pictures.classes))}
    )
    pictures = [Image.fromarray(pixels) for pixels in PIXELS]
    return datasets.Dataset.from_dict({"image": pictures, "label": LABELS.tolist()}, features=features)


def test_all_forms_of_the_same_images_give_the_same_data(table: Any) -> None:
    forms = [as_tensors(), (PIXELS, LABELS), (PIXELS[:, None], LABELS.tolist()), Pictures(), table]
    converted = [convert(form) for form in forms]
    assert len({each.fingerprint for each in converted}) == 1
    assert converted[0].train.inputs.shape[1:] == (1, 8, 8)
    assert converted[0].train.inputs.dtype == torch.uint8
    assert [each.classes for each in converted[-2:]] == [Pictures.classes] * 2
    assert converted[0].classes == tuple("0123456789")


def test_the_test_split_is_drawn_from_each_class_or_given(
    table: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sheaf"):
        drawn = convert(as_tensors(), test_share=0.25)
    assert "has no test split" in caplog.text
    fractions = drawn.test.counts(10) / torch.bincount(torch.from_numpy(LABELS))
    assert fractions.min() > 0.2
    assert fractions.max() < 0.3
    train, test = random_split(as_tensors(), [150, 50], torch.Generator().manual_seed(0))
    for pair in ((train, test), {"train": train, "validation": test}):
        given = convert(pair)
        assert (len(given.train), len(given.test)) == (150, 50)
        assert torch.equal(given.test.inputs[0], test[0][0])
    split = convert(table.train_test_split(0.3, seed=0))
    assert (len(split.train), len(split.test)) == (140, 60)


def test_names_of_a_subset_and_strings_as_labels() -> None:
    assert convert(Subset(Pictures(), range(150))).classes == Pictures.classes
    words = convert((PIXELS, [f"digit {label}" for label in LABELS]))
    assert words.classes[:2] == ("digit 0", "digit 1")


def test_floating_point_examples_and_channels_last_arrays(caplog: pytest.LogCaptureFixture) -> None:
    assert convert((DIGITS.images[:200], LABELS)).train.inputs.dtype == torch.float32
    colour = np.repeat(PIXELS[..., None], 3, axis=3)
    with caplog.at_level(logging.INFO, "sheaf"):
        assert convert((colour, LABELS)).shape == (3, 8, 8)
    assert "read as (rows, columns, channels)" in caplog.text


def test_pictures_are_converted_as_files_are(table: Any) -> None:
    assert convert(Pictures(), size=(4, 4)).shape == (1, 4, 4)
    assert convert(table, channels=3).shape == (3, 8, 8)
    with pytest.raises(DataError, match="convert images and sounds, but the data are tensors"):
        convert(as_tensors(), size=(4, 4))


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        yield 0


class Failing(Pictures):
    def __getitem__(self, index: int) -> Any:
        raise ValueError("the disk\nis gone")


class Floating(Pictures):
    def __getitem__(self, index: int) -> Any:
        return Image.fromarray(PIXELS[index].astype(np.float32)), 0


BAD: dict[str, tuple[Any, str]] = {
    "a number": (3, "int is not data that sheaf can read; give a sheaf.Dataset, a torch Dataset"),
    "an iterable dataset": (Endless(), "Endless has no length; give a map-style dataset"),
    "a split without train": ({"test": Pictures()}, "no split 'train', only 'test'"),
    "labels from -1": ((PIXELS, LABELS - 1), "labels range from -1 to 8"),
    "more labels than examples": ((PIXELS[:9], LABELS), "has 9 examples, but 200 labels"),
    "one-hot labels": ((PIXELS, np.eye(10)[LABELS]), "a label of the train split has the shape (10,)"),
    "fractions as labels": ((PIXELS, LABELS / 2), "the labels of the train split are float64"),
    "integers as examples": ((PIXELS.astype(np.int32), LABELS), "are int32; convert them to uint8"),
    "flat examples": ((PIXELS.reshape(200, 64), LABELS), "the shape (64,); it must be (C, H, W) or (H, W)"),
    "examples of two shapes": (
        [(torch.zeros(1, 8, 8), 0), (torch.zeros(1, 9, 9), 1)] * 3,
        "cannot be stacked",
    ),
    "no pairs": ([torch.zeros(1, 8, 8)] * 3, "is a Tensor; it must be a pair (input, label)"),
    "a failing dataset": (Failing(), "example 0 of the train split cannot be read: ValueError: the disk"),
    "images of another mode": (Floating(), "example 0 of the train split cannot be read: OSError"),
    "nothing": ((PIXELS[:0], LABELS[:0]), "the train split has no examples"),
    "a class without test examples": ((PIXELS[:12], np.arange(12)), "has no example of class"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_line(data: Any, said: str) -> None:
    with pytest.raises(DataError) as error:
        convert(data)
    assert said in one_line(error)


def test_columns_of_a_table(table: Any) -> None:
    with pytest.raises(DataError, match=r"no label column; name it in data.label; its columns: image"):
        convert(table.remove_columns("label"))
    with pytest.raises(DataError, match="no column of images, sounds or arrays"):
        convert(table.remove_columns("image"))
    renamed = table.rename_columns({"label": "digit", "image": "photo"})
    assert convert(renamed).fingerprint == convert(table).fingerprint
    with pytest.raises(DataError, match="no column 'label' as label column"):
        convert(renamed, label="label")
    with pytest.raises(DataError, match="choose columns of a table"):
        convert(Pictures(), label="digit")
