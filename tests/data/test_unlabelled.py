"""Samples without labels take the form of the experiment's data, from any arrangement of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import one_line

from sheaf.core.dataset import Dataset, Samples, Sound
from sheaf.core.errors import DataError
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.data.unlabelled import PublicSettings, load_unlabelled


def like(channels: int = 1, sound: Sound | None = None) -> Dataset:
    """Return a dataset of 6 x 5 images."""
    samples = Samples.of(torch.zeros(3, channels, 6, 5, dtype=torch.uint8), torch.arange(3))
    return Dataset("own", samples, samples, ("a", "b", "c"), (0.5,), (0.5,), "", sound)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images of different sizes, in and below a folder, beside another file."""
    draws = np.random.default_rng(0)
    for number in range(8):
        parent = tmp_path / "public" / ("" if number % 2 else f"deeper/{number}")
        parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (7 + number, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(parent / f"{number}.png")
    (tmp_path / "public" / "licence.txt").write_text("free")
    (tmp_path / "public" / "damaged.png").write_bytes(b"damaged")
    return tmp_path / "public"


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_arrangement_get_the_shape_of_the_data(
    channels: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sheaf")
    found = load_unlabelled(PublicSettings(name=str(folder)), like(channels), None, 0)
    assert found.samples.inputs.shape == (8, channels, 6, 5)
    assert found.samples.inputs.dtype == torch.uint8
    assert found.samples.inputs.float().std() > 10, "they are decoded"
    assert "1 of 10 files are no images and are left out" in caplog.text
    assert "1 of 9 images cannot be read" in caplog.text
    assert "data.skip_broken" not in caplog.text
    again = load_unlabelled(PublicSettings(name=folder.name), like(channels), folder.parent, 0)
    assert torch.equal(again.samples.inputs, found.samples.inputs)
    assert again.fingerprint == found.fingerprint


def test_a_limit_draws_by_the_seed(folder: Path) -> None:
    def drawn(seed: int) -> list[int]:
        public = PublicSettings(name=str(folder), limit=3)
        return load_unlabelled(public, like(), None, seed).samples.positions.tolist()

    assert len(drawn(1)) == len(set(drawn(1))) == 3
    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


def test_the_training_examples_of_a_dataset_lose_their_labels() -> None:
    digits = load_dataset(DataSettings(name="digits", limit=50))
    found = load_unlabelled(PublicSettings(name="digits"), digits, None, 0)
    assert len(found.samples) > len(digits.train)
    assert found.samples.inputs.shape[1:] == digits.shape
    assert found.samples.labels.unique().tolist() == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cloud.public.name"),
        ({}, "contains no image"),
        ({"a.txt": b"text"}, "contains no image"),
        ({"a.png": b"broken"}, "a.png"),
    ],
)
def test_bad_folders_are_refused_on_one_line(
    content: dict[str, bytes] | None, message: str, tmp_path: Path
) -> None:
    for name, value in (content or {}).items():
        (tmp_path / name).write_bytes(value)
    name = str(tmp_path if content is not None else tmp_path / "missing")
    with pytest.raises(DataError, match=message) as error:
        load_unlabelled(PublicSettings(name=name), like(), None, 0)
    one_line(error)
    assert str(error.value).startswith("cloud.public")
    assert "data.name" not in str(error.value)


def test_samples_of_another_form_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"are uint8 \(1, 1, 8, 8\), .*; name samples of the same shape"):
        load_unlabelled(PublicSettings(name="digits"), like(2), None, 0)
    with pytest.raises(DataError, match="contains no sound"):
        load_unlabelled(PublicSettings(name=str(folder)), like(1, Sound(rate=8000, seconds=1)), None, 0)
    with pytest.raises(DataError, match="1 sample cannot teach a model"):
        load_unlabelled(PublicSettings(name=str(folder), limit=1), like(), None, 0)
    with pytest.raises(DataError, match=r"cloud.public.name: .*no_such"):
        load_unlabelled(PublicSettings(name="no_such"), like(), None, 0)
