"""Parquet shards in a folder: their names, their splits, and missing ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sheaf.core.errors import DataError
from sheaf.data.readers.parquet import read_parquet

Shard = Callable[..., Path]
NAMES = ["cat", "dog"]


def test_folders_may_be_named_like_the_splits(tmp_path: Path, shard: Shard) -> None:
    shard(tmp_path / "v1/train/0000.parquet", [0, 1])
    shard(tmp_path / "v1/validation/0000.parquet", [1, 0, 0])
    read = read_parquet(tmp_path)
    assert read.classes == ("0", "1")
    assert read.test.labels.tolist() == [1, 0, 0]


def test_a_missing_shard_is_an_error(folder: Path) -> None:
    (folder / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="has 1 of 2 train shards"):
        read_parquet(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002-9e3f"], "has 1 of 2 train shards"),
        (["train-00001-of-00002.snappy"], "has 1 of 2 train shards"),
        (["train-00000-of-00002-9e3f", "train-00000-of-00002-77aa"], "several versions"),
        (["train-00000-of-00001", "train-00000-of-00002"], "several versions"),
        (["train-00000-of-00002", "train-more"], "train-more.parquet is not numbered"),
        (["train_00000_of_00002"], "has 1 of 2 train shards"),
        (["train-00005-of-00001"], "numbered wrongly"),
        (["train/0000", "train/0002"], "up to number 2, but no number 1"),
    ],
)
def test_shards_must_be_complete(tmp_path: Path, shard: Shard, names: list[str], message: str) -> None:
    for name in [*names, "test"]:
        shard(tmp_path / f"{name}.parquet", [0, 1], NAMES)
    with pytest.raises(DataError, match=message):
        read_parquet(tmp_path)


@pytest.mark.parametrize(
    "names", [["train-00000-of-00002-9e3f", "train-00001-of-00002-77aa"], ["train-1-of-1"], ["train-7"]]
)
def test_complete_shards(tmp_path: Path, shard: Shard, names: list[str]) -> None:
    for name in [*names, "test"]:
        shard(tmp_path / f"{name}.parquet", [0, 1], NAMES)
    assert len(read_parquet(tmp_path).train.labels) == 2 * len(names)


@pytest.mark.parametrize("names", [("Train", "TEST"), ("train", "val"), ("training/0", "Valid/0")])
def test_other_names_of_splits(tmp_path: Path, shard: Shard, names: tuple[str, str]) -> None:
    for name in names:
        shard(tmp_path / f"{name}.parquet", [0, 1], NAMES)
    assert read_parquet(tmp_path).test.labels.tolist() == [0, 1]


def test_linked_folders_and_capital_suffixes(tmp_path: Path, shard: Shard) -> None:
    shard(tmp_path / "elsewhere/0.PARQUET", [0, 1], NAMES)
    (tmp_path / "set").mkdir()
    for name in ("train", "test"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    assert read_parquet(tmp_path / "set").train.labels.tolist() == [0, 1]


def test_a_missing_test_split_is_an_error(folder: Path) -> None:
    (folder / "data/test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"has no test-\*\.parquet, only 'train'"):
        read_parquet(folder)


def test_two_sets_in_one_folder_are_an_error(folder: Path, shard: Shard) -> None:
    shard(folder / "other/train-0.parquet", [0, 1])
    with pytest.raises(DataError, match="several datasets"):
        read_parquet(folder)


def test_a_shard_of_no_split_is_an_error(folder: Path, shard: Shard) -> None:
    shard(folder / "data/extra.parquet", [0, 1])
    with pytest.raises(DataError, match=r"extra.parquet is of no split"):
        read_parquet(folder)


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_damaged_file_is_an_error(folder: Path, keep: int) -> None:
    path = folder / "data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet is damaged"):
        read_parquet(folder)
