"""Parquet datasets in the layout of the Hub: splits, rows and their content."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sheaf.core.errors import DataError
from sheaf.data.readers.parquet import read_parquet, read_splits

Shard = Callable[..., Path]
NAMES = ["cat", "dog"]


def test_a_set_of_several_shards(folder: Path) -> None:
    read = read_parquet(folder)
    assert read.kind == "image"
    assert read.classes == ("cat", "dog")
    assert read.train.labels.tolist() == [0, 1, 0, 1, 1, 1, 0]
    assert read.test.labels.tolist() == [1, 0]


def test_selected_rows_come_with_their_locations(folder: Path) -> None:
    items = list(read_parquet(folder).train.items(np.array([1, 4, 6])))
    assert [location.rpartition("/")[0].split(" ")[1] for location, _ in items] == ["1", "4", "1"]
    assert items[2][0].endswith("train-00001-of-00002.parquet")
    every = [data for _, data in read_parquet(folder).train.items(np.arange(7))]
    assert [data for _, data in items] == [every[1], every[4], every[6]]


def test_a_class_can_be_left_out(folder: Path) -> None:
    read = read_parquet(folder, without=["cat"])
    assert read.classes == ("dog",)
    assert read.train.labels.tolist() == [0] * 4
    assert next(read.train.items(np.array([0])))[0].startswith("row 1 ")


def test_a_row_without_bytes_is_an_error(tmp_path: Path, shard: Shard, png: Callable[..., bytes]) -> None:
    shard(tmp_path / "train-0.parquet", [0, 1], NAMES, images=[png(), None])
    shard(tmp_path / "test-0.parquet", [0, 1], NAMES)
    with pytest.raises(DataError, match=r"row 1 of .*train-0.parquet contains no bytes"):
        list(read_parquet(tmp_path).train.items(np.arange(2)))


def test_an_unused_validation_split_is_noted(
    folder: Path, shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sheaf")
    shard(folder / "data/validation.parquet", [0, 1], NAMES)
    assert read_parquet(folder).test.labels.tolist() == [1, 0]
    assert "the validation split is left out" in caplog.text
    caplog.clear()
    read_parquet(folder, test="test")
    assert caplog.text == ""


def test_a_split_without_rows_is_an_error(folder: Path, shard: Shard) -> None:
    shard(folder / "data/test-00000-of-00001.parquet", [], NAMES)
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet has no rows"):
        read_parquet(folder)


def test_a_damaged_page_is_an_error(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        path = shard(tmp_path / f"{split}-0.parquet", [0, 1] * 50, NAMES)
    data = bytearray(path.read_bytes())
    data[4:1500] = b"\xff" * 1496
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"test-0.parquet is damaged"):
        list(read_parquet(tmp_path).test.items(np.arange(100)))


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU"])
def test_sounds_are_recognised(tmp_path: Path, shard: Shard, form: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(4000), 8000, format=form)
    path = shard(tmp_path / "train-0.parquet", [0], images=[file.getvalue()])
    assert read_splits(tmp_path, {"train": [path], "test": [path]}).kind == "sound"


def test_a_test_split_is_drawn_if_there_is_none(tmp_path: Path, shard: Shard) -> None:
    path = shard(tmp_path / "train-0.parquet", [0, 1, 0, 1, 0, 1], NAMES)
    encoded = read_splits(tmp_path, {"train": [path]}, test_fraction=0.3)
    assert encoded.test.labels.tolist() == [0, 1]
    rows = [
        location.split(" ")[1]
        for split in (encoded.train, encoded.test)
        for location, _ in split.items(np.arange(len(split.labels)))
    ]
    assert sorted(rows) == ["0", "1", "2", "3", "4", "5"]
    with pytest.raises(DataError, match=r"has no test-\*.parquet, only 'train'"):
        read_splits(tmp_path, {"train": [path]})
