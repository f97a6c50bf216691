"""Labels of parquet shards, and the names of the classes."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sheaf.core.errors import DataError
from sheaf.data.readers.parquet import read_parquet

Shard = Callable[..., Path]
NAMES = ["cat", "dog"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1, -1], r"row 1 of .*train-1.parquet: label is -1, .*unlabelled.*2 of 3 rows"),
        ([0, 1, 7], r"row 2 of .*label is 7, must be 0 to 1; 1 of 3"),
        ([0, None, 1], r"row 1 of .*has no label"),
    ],
)
def test_invalid_labels_are_errors(
    tmp_path: Path, shard: Shard, labels: list[int | None], message: str
) -> None:
    shard(tmp_path / "train-1.parquet", labels, NAMES)
    shard(tmp_path / "test-1.parquet", [0, 1], NAMES)
    with pytest.raises(DataError, match=message):
        read_parquet(tmp_path)


def test_the_row_in_a_message_is_counted_within_its_shard(folder: Path, shard: Shard) -> None:
    shard(folder / "data/train-00001-of-00002.parquet", [1, 5], NAMES)
    with pytest.raises(DataError, match=r"row 1 of .*train-00001"):
        read_parquet(folder)


def test_labels_must_be_integers_or_strings(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}-0.parquet", [0, 1], kind=pa.float64())
    with pytest.raises(
        DataError,
        match=r"must contain integers or strings, not double; .* data.label: 'id'",
    ):
        read_parquet(tmp_path)


def test_identifiers_are_no_labels(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 17, 10**9])
    with pytest.raises(
        DataError,
        match=r"'label' has 3 different values up to 1,000,000,000, .* 0 to K-1, .*: 'id'",
    ):
        read_parquet(tmp_path)
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 2**64 - 1], kind=pa.uint64())
    with pytest.raises(DataError, match=r"a value is above 2\^63"):
        read_parquet(tmp_path)


@pytest.mark.parametrize("labels", [[-1, -1], [None, None]])
def test_an_unlabelled_test_split_is_replaced_by_the_validation_split(
    tmp_path: Path, shard: Shard, labels: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sheaf")
    shard(tmp_path / "train.parquet", [0, 1], NAMES)
    shard(tmp_path / "test.parquet", labels, NAMES)
    shard(tmp_path / "validation.parquet", [1, 1, 0], NAMES)
    assert read_parquet(tmp_path).test.labels.tolist() == [1, 1, 0]
    assert "the test split has no labels; the validation split is the test split" in caplog.text
    shard(tmp_path / "test.parquet", [0, -1], NAMES)
    with pytest.raises(DataError, match="label is -1"):
        read_parquet(tmp_path)


def test_a_test_split_without_a_label_column_is_replaced_too(tmp_path: Path, shard: Shard) -> None:
    shard(tmp_path / "train.parquet", [0, 1], NAMES)
    shard(tmp_path / "test.parquet", [0, 1], label="other")
    shard(tmp_path / "validation.parquet", [1, 1, 0], NAMES)
    assert read_parquet(tmp_path).test.labels.tolist() == [1, 1, 0]


def test_numbers_of_classes_may_have_gaps(tmp_path: Path, shard: Shard) -> None:
    """A device may lack some of the fleet's classes."""
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 2])
    assert read_parquet(tmp_path).classes == ("0", "1", "2")


def test_strings_are_classes_in_sorted_order(tmp_path: Path, shard: Shard) -> None:
    shard(tmp_path / "train.parquet", ["owl", "caf\u00e9", "owl"], kind=pa.string())
    shard(tmp_path / "test.parquet", ["cafe\u0301", "owl"], kind=pa.dictionary(pa.int8(), pa.string()))
    read = read_parquet(tmp_path)
    assert read.classes == ("caf\u00e9", "owl")
    assert read.train.labels.tolist() == [1, 0, 1]
    assert read.test.labels.tolist() == [0, 1]
    shard(tmp_path / "test.parquet", ["owl", "bee"], kind=pa.large_string())
    assert read_parquet(tmp_path).classes == ("bee", "caf\u00e9", "owl")
    shard(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(DataError, match="different types of column 'label'"):
        read_parquet(tmp_path)
