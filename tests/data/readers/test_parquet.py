"""Parquet shards in the layout of the Hub, and their possible defects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sheaf.core.errors import DataError
from sheaf.data.readers.any_folder import read_any_folder
from sheaf.data.readers.parquet import read_parquet
from sheaf.data.settings import DataSettings

Shard = Callable[..., Path]
NAMES = ["cat", "dog"]


@pytest.fixture
def folder(tmp_path: Path, shard: Shard) -> Path:
    shard(tmp_path / "data/train-00000-of-00002.parquet", [0, 1, 0, 1, 1], NAMES, row_group_size=2)
    shard(tmp_path / "data/train-00001-of-00002.parquet", [1, 0], NAMES)
    shard(tmp_path / "data/test-00000-of-00001.parquet", [1, 0], NAMES)
    return tmp_path


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


def test_folders_may_be_named_like_the_splits(tmp_path: Path, shard: Shard) -> None:
    shard(tmp_path / "v1/train/0000.parquet", [0, 1])
    shard(tmp_path / "v1/validation/0000.parquet", [1, 0, 0])
    read = read_parquet(tmp_path)
    assert read.classes == ("0", "1")
    assert read.test.labels.tolist() == [1, 0, 0]


def test_the_only_class_label_is_the_label_column(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 1], NAMES, label="fine_label")
    assert read_parquet(tmp_path).classes == ("cat", "dog")
    assert read_parquet(tmp_path, label="fine_label").train.labels.tolist() == [0, 1]


def test_a_class_can_be_left_out(folder: Path) -> None:
    read = read_parquet(folder, without=["cat"])
    assert read.classes == ("dog",)
    assert read.train.labels.tolist() == [0] * 4
    assert next(read.train.items(np.array([0])))[0].startswith("row 1 ")


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


def test_a_row_without_bytes_is_an_error(tmp_path: Path, shard: Shard, png: Callable[..., bytes]) -> None:
    shard(tmp_path / "train-0.parquet", [0, 1], NAMES, images=[png(), None])
    shard(tmp_path / "test-0.parquet", [0, 1], NAMES)
    with pytest.raises(DataError, match=r"row 1 of .*train-0.parquet contains no bytes"):
        list(read_parquet(tmp_path).train.items(np.arange(2)))


def test_labels_must_be_integers_or_strings(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}-0.parquet", [0, 1], kind=pa.float64())
    with pytest.raises(
        DataError,
        match=r"must contain integers or strings, not double; .* data.label: 'id'",
    ):
        read_parquet(tmp_path)


def test_a_missing_label_column_is_an_error(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}-0.parquet", [0, 1], label="target")
    with pytest.raises(DataError, match="has no column 'label', only 'id', 'picture', 'target'"):
        read_parquet(tmp_path)


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


@pytest.mark.parametrize("names", [["cat", "dog", "cat"], ["caf\u00e9", "cafe\u0301"]])
def test_class_names_must_differ(tmp_path: Path, shard: Shard, names: list[str]) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 1], names)
    with pytest.raises(DataError, match=r"train.parquet: the metadata of column 'label' names more than one"):
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


def test_a_split_without_rows_is_an_error(folder: Path, shard: Shard) -> None:
    shard(folder / "data/test-00000-of-00001.parquet", [], NAMES)
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet has no rows"):
        read_parquet(folder)


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


def write_columns(folder: Path, columns: dict[str, Any]) -> None:
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def test_a_column_of_bytes_contains_images(tmp_path: Path, png: Callable[..., bytes]) -> None:
    images = [png(10), png(20)]
    write_columns(tmp_path, {"picture": images, "label": [0, 1]})
    read = read_parquet(tmp_path)
    assert [content for _, content in read.test.items(np.arange(2))] == images


def test_settings_choose_columns(tmp_path: Path, png: Callable[..., bytes]) -> None:
    images, masks = [png(10), png(20)], [png(1), png(2)]
    write_columns(tmp_path, {"image": images, "mask": masks, "fine": [0, 1], "coarse": ["b", "a"]})
    with pytest.raises(DataError, match=r"2: 'image', 'mask'; choose one with data.input; .*'coarse'"):
        read_parquet(tmp_path)
    with pytest.raises(DataError, match=r"no column 'label', only .*'fine', 'coarse'; .* with data.label"):
        read_parquet(tmp_path, input_column="mask")
    with pytest.raises(DataError, match=r"no column 'corse'; choose .* with data.label: .*'coarse'"):
        read_parquet(tmp_path, label="corse", input_column="mask")
    with pytest.raises(DataError, match=r"column 'fine' must contain .* not int64; .* with data.input"):
        read_parquet(tmp_path, label="fine", input_column="fine")
    read = read_any_folder(tmp_path, DataSettings(name="x", label="coarse", input="mask"))
    assert read.classes == ("a", "b")
    assert read.train.labels.tolist() == [1, 0]
    assert [content for _, content in read.train.items(np.arange(2))] == masks


def test_columns_of_one_name_are_an_error(tmp_path: Path, png: Callable[..., bytes]) -> None:
    table = pa.table([[png()], [0], [0]], names=["picture", "label", "label"])
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="has 2 columns 'label'"):
        read_parquet(tmp_path)


def test_columns_of_a_folder_of_images_cannot_be_chosen(tmp_path: Path, png: Callable[..., bytes]) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png())
    with pytest.raises(DataError, match=r"data.label and data.input choose columns of parquet shards"):
        read_any_folder(tmp_path, DataSettings(name="x", label="fine"))


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


def test_classes_must_agree(folder: Path, shard: Shard) -> None:
    shard(folder / "data/test-00000-of-00001.parquet", [0, 1], NAMES[::-1])
    with pytest.raises(DataError, match="have different class names"):
        read_parquet(folder)


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_damaged_file_is_an_error(folder: Path, keep: int) -> None:
    path = folder / "data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet is damaged"):
        read_parquet(folder)


def test_a_damaged_page_is_an_error(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        path = shard(tmp_path / f"{split}-0.parquet", [0, 1] * 50, NAMES)
    data = bytearray(path.read_bytes())
    data[4:1500] = b"\xff" * 1496
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"test-0.parquet is damaged"):
        list(read_parquet(tmp_path).test.items(np.arange(100)))
