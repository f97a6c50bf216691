"""Decoding of all images of a folder: bits in use, sizes, memory, broken files."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from PIL import Image

from sheaf.core.dataset import Dataset
from sheaf.core.errors import DataError
from sheaf.data.load import load_dataset
from sheaf.data.readers import decode
from sheaf.data.settings import DataSettings

Write = Callable[[str, np.ndarray], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, pixels: np.ndarray) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            for number in range(5):
                write(f"{split}/{name}/{number}.png", np.full((2, 3), 100 * label + number, np.uint8))
    return write


def load(folder: Path, **keys: object) -> Dataset:
    return load_dataset(DataSettings(name=str(folder), **keys))


def test_deep_images_share_the_range_of_the_whole_dataset(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("train/cat/0.png", np.full((2, 3), 255, np.uint16))
    write("test/cat/0.png", np.full((2, 3), 4000, np.uint16))
    with caplog.at_level(logging.INFO, "sheaf"):
        dataset = load(tmp_path)
    assert "more than 8 bits per channel use 12 bits" in caplog.text
    assert dataset.bits == 12
    assert dataset.train.inputs[:2, 0, 0, 0].tolist() == [255 >> 4, 1]
    assert dataset.test.inputs[:2, 0, 0, 0].tolist() == [4000 >> 4, 1]
    assert load(tmp_path, bits=16).test.inputs[0, 0, 0, 0] == 4000 >> 8


def test_full_range_images_need_no_note(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("train/cat/0.png", np.full((2, 3), 65535, np.uint16))
    with caplog.at_level(logging.INFO, "sheaf"):
        assert load(tmp_path).bits == 16
    assert not caplog.records


def test_all_broken_files_are_named_at_once(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train/cat/0", "train/cat/1", "train/cat/2", "train/dog/3", "test/cat/1", "test/dog/4"):
        (tmp_path / f"{name}.png").write_bytes(b"no")
    with pytest.raises(
        DataError, match=r"6 of 20 images cannot be read: .*cat/0.png: .*; and 1 more; .*data.skip_broken"
    ) as error:
        load(tmp_path)
    assert str(error.value).count(".png: it is no image") == 5
    with caplog.at_level(logging.INFO, "sheaf"):
        dataset = load(tmp_path, skip_broken=True)
    assert "6 of 20 images cannot be read: " in caplog.text
    assert "and 1 more; data.skip_broken leaves them out" in caplog.text
    assert dataset.train.inputs[:, 0, 0, 0].tolist() == [3, 4, 100, 101, 102, 104]
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert len(dataset.test) == 8


def test_a_class_whose_files_are_all_broken_is_an_error(tmp_path: Path, write: Write) -> None:
    for number in range(5):
        (tmp_path / f"train/cat/{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match="train split has no example of class 'cat'"):
        load(tmp_path, skip_broken=True)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="20 of 20 images cannot be read"):
        load(tmp_path, skip_broken=True)


def test_large_images_of_several_sizes_are_refused_by_their_headers(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in tmp_path.rglob("*.png"):
        write(str(path.relative_to(tmp_path)), np.zeros((300, 400), np.uint8))
    assert load(tmp_path).shape == (1, 300, 400)
    write("test/dog/4.png", np.zeros((400, 300), np.uint8))
    monkeypatch.setattr(decode, "decode_with_bits", None)
    with pytest.raises(DataError, match=r"cat/0.png is 300x400, .*dog/4.png is 400x300; set data.size"):
        load(tmp_path, limit_test=10)


def test_more_images_than_memory_are_refused(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 119

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(
        DataError, match=r"20 images of 2x3 grey need .* available; set .*data.size, or data.limit"
    ):
        load(tmp_path, cache=False)
    Memory.available = 120
    assert torch.equal(load(tmp_path, cache=False).test.labels, torch.tensor([0] * 5 + [1] * 5))


def test_broken_sounds_are_left_out(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("high", "low"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                soundfile.write(tmp_path / split / name / f"{number}.wav", np.zeros(8000), 8000)
    (tmp_path / "train/low/0.wav").write_bytes(b"no")
    with pytest.raises(DataError, match=r"low/0.wav cannot be read: .*; mend it, or set data.skip_broken"):
        load(tmp_path)
    assert load(tmp_path, skip_broken=True).train.labels.tolist() == [0, 0, 1]
    (tmp_path / "train/low/1.wav").write_bytes(b"no")
    with pytest.raises(DataError, match="the train split has no example of class 'low'"):
        load(tmp_path, skip_broken=True, limit_test=3)


def test_broken_images_are_left_out_before_the_split(
    tmp_path: Path, png: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sheaf")
    for name in ("good", "mixed"):
        for number in range(9):
            path = tmp_path / name / f"class-{number % 3}" / f"image-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(20 * number))
    for number in range(9, 30):  # some of them would have been a class's only test or training images
        (tmp_path / "mixed" / f"class-{number % 3}" / f"image-{number}.png").write_bytes(b"no")
    for keys in ({}, {"limit": 6, "limit_test": 3}):
        good = load(tmp_path / "good", **keys)
        mixed = load(tmp_path / "mixed", skip_broken=True, **keys)
        assert mixed.fingerprint == good.fingerprint
    assert "21 of 30 images cannot be read" in caplog.text
