"""Whatever lies in sheaf/data is found by name and makes a dataset."""

import os
from pathlib import Path

import pytest
import torch

from sheaf.core import registry
from sheaf.core.errors import DataError
from sheaf.data.load import DataSettings, load_dataset
from sheaf.data.readers.huggingface import HubSet

NAMES = list(registry.describe("data"))
HERE = os.environ.get("SHEAF_DATA")


def available(name: str) -> bool:
    offered = registry.load("data", name)
    return not isinstance(offered, HubSet) or (HERE is not None and (Path(HERE) / offered.folder).is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_has_one_line_about_it(name: str) -> None:
    assert registry.describe("data")[name].endswith((".", ")"))
    assert callable(registry.load("data", name))


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_is_whole(name: str) -> None:
    if not available(name):
        pytest.skip(f"{name} is not under SHEAF_DATA")
    dataset = load_dataset(DataSettings(name=name, limit=300, limit_test=200))
    K = len(dataset.classes)
    assert len(dataset.train) == 300
    assert len(dataset.test) == 200
    for part in (dataset.train, dataset.test):
        counts = part.counts(K)
        assert counts.max() - counts.min() <= 1
        assert part.inputs.shape[1:] == dataset.shape
        assert part.inputs.dtype in (torch.uint8, torch.float32)
    assert len(dataset.mean) == len(dataset.std) == dataset.shape[0]
    assert min(dataset.std) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_that_is_nowhere_says_where_it_was_looked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = registry.load("data", name)
    if not isinstance(offered, HubSet):
        pytest.skip(f"{name} comes with a package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        load_dataset(DataSettings(name=name), tmp_path / "root")
    said = str(error.value)
    assert "\n" not in said
    for place in (tmp_path / "root" / offered.folder, tmp_path / "cache/sheaf/data" / offered.folder):
        assert str(place) in said
    assert offered.repo in said


def test_digits_are_split_by_class() -> None:
    dataset = load_dataset(DataSettings(name="digits"))
    assert len(dataset.train) + len(dataset.test) == 1797
    assert dataset.train.inputs.max() == 255
    share = dataset.test.counts(10) / (dataset.train.counts(10) + dataset.test.counts(10))
    assert ((share > 0.18) & (share <= 0.2)).all()


def test_usual_constants_are_about_what_the_images_say() -> None:
    for name in ("mnist", "cifar10"):
        if not available(name):
            pytest.skip(f"{name} is not under SHEAF_DATA")
        usual = load_dataset(DataSettings(name=name, limit=2000, limit_test=10))
        pixels = usual.train.inputs.double() / 255
        assert torch.allclose(pixels.mean((0, 2, 3)), torch.tensor(usual.mean).double(), atol=0.02)
        assert torch.allclose(pixels.std((0, 2, 3)), torch.tensor(usual.std).double(), atol=0.02)
