"""Every dataset of sheaf/data/sets is found by its name and can be loaded."""

import os
from pathlib import Path

import pytest
import torch

from sheaf.core import registry
from sheaf.core.errors import DataError
from sheaf.data.load import load_dataset
from sheaf.data.readers.huggingface import HubSet
from sheaf.data.settings import DataSettings

NAMES = list(registry.describe("data"))
ROOT = os.environ.get("SHEAF_DATA")


def available(name: str) -> bool:
    thing = registry.load("data", name)
    return not isinstance(thing, HubSet) or (ROOT is not None and (Path(ROOT) / thing.folder).is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_has_a_description(name: str) -> None:
    assert registry.describe("data")[name].endswith((".", ")"))
    assert callable(registry.load("data", name))


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_is_complete(name: str) -> None:
    if not available(name):
        pytest.skip(f"{name} is not under SHEAF_DATA")
    dataset = load_dataset(DataSettings(name=name, limit=300, limit_test=200))
    K = len(dataset.classes)
    assert len(dataset.train) == 300
    assert len(dataset.test) == 200
    for split in (dataset.train, dataset.test):
        counts = split.counts(K)
        assert counts.max() - counts.min() <= 1
        assert split.inputs.shape[1:] == dataset.shape
        assert split.inputs.dtype in (torch.uint8, torch.float32)
    assert len(dataset.mean) == len(dataset.std) == dataset.shape[0]
    assert min(dataset.std) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_error_for_a_missing_dataset_lists_the_searched_folders(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = registry.load("data", name)
    if not isinstance(thing, HubSet):
        pytest.skip(f"{name} comes with a package")
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        load_dataset(DataSettings(name=name), tmp_path / "root")
    message = str(error.value)
    assert "\n" not in message
    for place in (tmp_path / "root" / thing.folder, tmp_path / "cache/data" / thing.folder):
        assert str(place) in message
    assert thing.repo in message


def test_digits_are_split_by_class() -> None:
    dataset = load_dataset(DataSettings(name="digits"))
    assert len(dataset.train) + len(dataset.test) == 1797
    assert dataset.train.inputs.max() == 255
    fraction = dataset.test.counts(10) / (dataset.train.counts(10) + dataset.test.counts(10))
    assert ((fraction > 0.18) & (fraction <= 0.2)).all()


def test_published_statistics_are_close_to_those_of_the_images() -> None:
    for name in ("mnist", "cifar10"):
        if not available(name):
            pytest.skip(f"{name} is not under SHEAF_DATA")
        dataset = load_dataset(DataSettings(name=name, limit=2000, limit_test=10))
        pixels = dataset.train.inputs.double() / 255
        assert torch.allclose(pixels.mean((0, 2, 3)), torch.tensor(dataset.mean).double(), atol=0.02)
        assert torch.allclose(pixels.std((0, 2, 3)), torch.tensor(dataset.std).double(), atol=0.02)
