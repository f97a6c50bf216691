"""The columns of inputs and labels in parquet shards."""

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


def test_the_only_class_label_is_the_label_column(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 1], NAMES, label="fine_label")
    assert read_parquet(tmp_path).classes == ("cat", "dog")
    assert read_parquet(tmp_path, label="fine_label").train.labels.tolist() == [0, 1]


def test_a_missing_label_column_is_an_error(tmp_path: Path, shard: Shard) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}-0.parquet", [0, 1], label="target")
    with pytest.raises(DataError, match="has no column 'label', only 'id', 'picture', 'target'"):
        read_parquet(tmp_path)


@pytest.mark.parametrize("names", [["cat", "dog", "cat"], ["caf\u00e9", "cafe\u0301"]])
def test_class_names_must_differ(tmp_path: Path, shard: Shard, names: list[str]) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 1], names)
    with pytest.raises(DataError, match=r"train.parquet: the metadata of column 'label' names more than one"):
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


def test_classes_must_agree(folder: Path, shard: Shard) -> None:
    shard(folder / "data/test-00000-of-00001.parquet", [0, 1], NAMES[::-1])
    with pytest.raises(DataError, match="have different class names"):
        read_parquet(folder)
