"""Folders of files with their labels in a CSV table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sheaf.core.errors import DataError
from sheaf.data.load import load_dataset
from sheaf.data.readers.any_folder import read_any_folder
from sheaf.data.readers.encoded import Encoded
from sheaf.data.settings import DataSettings

Png = Callable[..., bytes]
LABELS = [("cat", "dog")[number % 2] for number in range(10)]


@pytest.fixture
def folder(tmp_path: Path, png: Png) -> Path:
    """Write ten images and no table."""
    (tmp_path / "images").mkdir()
    for number in range(10):
        (tmp_path / "images" / f"im{number}.png").write_bytes(png(20 * number))
    return tmp_path


def read(folder: Path, **keys: object) -> Encoded:
    return read_any_folder(folder, DataSettings(name="x", **keys))


def table(folder: Path, *lines: str, name: str = "labels.csv", encoding: str = "utf-8") -> None:
    (folder / name).write_text("\n".join(lines) + "\n", encoding)


def labels_by_name(encoded: Encoded) -> dict[str, str]:
    return {
        Path(location).name: encoded.classes[label]
        for split in (encoded.train, encoded.test)
        for label, (location, _) in zip(
            split.labels.tolist(), split.items(np.arange(len(split.labels))), strict=True
        )
    }


EXPECTED = {f"im{number}.png": label for number, label in enumerate(LABELS)}


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,label", "im{0}.png,{1}"),
        ("label,file", "{1},im{0}.png"),
        ("Image Path;Class", "images/im{0}.png; {1} "),
        ("id\tbreed", "im{0}\t{1}"),
        ("filename,fold,target,category", "IM{0}.PNG,1,{0},{1}"),
        ("Bild;Klasse", "im{0}.png;{1}"),
        ("file,label", '"/home/someone/set/images/im{0}.png","{1}"'),
        ("file,label", r"C:\set\images\im{0}.png,{1}"),
        (None, "im{0}.png,{1}"),
        (None, "./images/im{0}.png|{1}"),
    ],
)
def test_common_tables(folder: Path, caplog, header: str | None, row: str) -> None:
    caplog.set_level("INFO", "sheaf")
    rows = [row.format(number, label) for number, label in enumerate(LABELS)]
    table(folder, *([header] if header else []), *rows)
    encoded = read(folder)
    assert encoded.kind == "image"
    assert encoded.classes == ("cat", "dog")
    assert labels_by_name(encoded) == EXPECTED
    assert len(encoded.test.labels) >= 2
    assert f"the labels are read from {folder / 'labels.csv'}" in caplog.text
    assert ("the first row is taken for the header: 'Bild', 'Klasse'" in caplog.text) == (
        header == "Bild;Klasse"
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(folder: Path, encoding: str) -> None:
    rows = [f"im{number}.png,{label}" for number, label in enumerate(LABELS)]
    table(folder, "file,label", *rows, encoding=encoding)
    assert labels_by_name(read(folder)) == EXPECTED


def test_columns_and_tables_can_be_chosen(folder: Path) -> None:
    rows = [f"im{number}.png,im{9 - number}.png,{label},x" for number, label in enumerate(LABELS)]
    table(folder, "a,b,c,d", *rows)
    table(folder, "about,this", name="about.csv")
    with pytest.raises(DataError, match=r"contains 'about.csv', 'labels.csv'; choose .* data.labels ="):
        read(folder)
    with pytest.raises(DataError, match=r"columns 'a', 'b', 'c', 'd' do not show .* data.label"):
        read(folder, labels="labels.csv")
    assert labels_by_name(read(folder, labels="labels.csv", label="c")) == EXPECTED
    reverse = read(folder, labels=str(folder / "labels.csv"), label="c", input="b")
    assert labels_by_name(reverse)["im0.png"] == "dog"
    with pytest.raises(DataError, match=r"has no column 'e'; choose one .* with data.label: 'a', 'b', "):
        read(folder, labels="labels.csv", label="e")
    with pytest.raises(DataError, match=r"data.labels = 'lables.csv' is no file in .*, nor in"):
        read(folder, labels="lables.csv")


def test_class_folders_go_before_a_table_that_is_not_chosen(folder: Path, png: Png) -> None:
    (folder / "more").mkdir()
    for number in range(2):
        (folder / "more" / f"{number}.png").write_bytes(png())
    rows = [f"images/im{number}.png,{label}" for number, label in enumerate(LABELS)]
    table(folder, "file,label", *rows)
    assert read(folder).classes == ("images", "more")
    assert read(folder, labels="labels.csv").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "values", [("train", "test", "test"), ("Training", "val", "test"), ("train", "VAL", "VAL")]
)
def test_a_column_of_splits(folder: Path, caplog, values: tuple[str, str, str]) -> None:
    caplog.set_level("INFO", "sheaf")
    splits = [values[0]] * 6 + [values[1]] * 2 + [values[2]] * 2
    rows = [f"im{number}.png,{label},{splits[number]}" for number, label in enumerate(LABELS)]
    table(folder, "file,label,split", *rows)
    encoded = read(folder)
    assert encoded.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(encoded.test.labels) == splits.count(values[2])
    if values[1] == "val":
        assert "the validation split is left out" in caplog.text
    if values[1] == "VAL":
        assert "the validation split is the test split" in caplog.text


def test_folders_that_are_named_like_splits(folder: Path) -> None:
    (folder / "train").mkdir()
    (folder / "images").rename(folder / "test")
    for number in range(6):
        (folder / "test" / f"im{number}.png").rename(folder / "train" / f"im{number}.png")
    rows = [f"im{number}.png,{label}" for number, label in enumerate(LABELS)]
    table(folder, "file,label", *rows)
    encoded = read(folder)
    assert encoded.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    table(folder, "file,label", *rows[:6])  # as in a contest, whose test files have no labels
    encoded = read(folder)
    assert len(encoded.train.labels) + len(encoded.test.labels) == 6


def test_numbers_are_sorted_by_value(folder: Path) -> None:
    table(folder, "file,label", *[f"im{number}.png,{5 + 5 * (number % 2)}" for number in range(10)])
    assert read(folder).classes == ("5", "10")


def test_sounds(tmp_path: Path) -> None:
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(800), 8000)
    table(tmp_path, "0,yes", "1,no", "2,yes", "3,no")
    dataset = load_dataset(DataSettings(name=str(tmp_path)))
    assert dataset.classes == ("no", "yes")
    assert dataset.shape == (1, 40, 63)


ROWS = [f"im{number}.png,{label}" for number, label in enumerate(LABELS)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", *ROWS[:-1]], r"im9.png is not in .*labels.csv; add a row, or remove the file"),
        (ROWS[:-3], r"im7.png is not in .*labels.csv, nor are 2 others; add a row"),
        (["file,label", *ROWS, "im10.png,cat"], r"labels.csv, row 12 names 'im10.png', which is not in"),
        (["file,label", "im10.png,cat", *ROWS], r"labels.csv, row 2 names 'im10.png', which is not in"),
        (["im10.png,cat", *ROWS], r"labels.csv, row 1 names 'im10.png', which is not in"),
        (["other/im0.png,cat", *ROWS[1:]], r"row 1 names 'other/im0.png', which is not in"),
        ([*ROWS, "im3.png,cat"], r"labels.csv, rows 4 and 11 both name .*im3.png; remove one"),
        (["file,label", "im0.png,", *ROWS[1:]], r"labels.csv, row 2 has no label; add it"),
        (["file,label", "im0.png", *ROWS[1:]], r"labels.csv, row 2 has no label; add it"),
        (["file,label", ",cat", *ROWS[1:]], r"labels.csv, row 2 has no name of a file; add it"),
        (["file,label"], r"labels.csv has no rows below its header"),
        ([""], r"labels.csv has no rows; add one for each file"),
        ([f"im{number}.png" for number in range(10)], r"labels.csv has one column, but needs one of file"),
        ([f"{row},1" for row in ROWS], r"labels.csv has 3 columns without a header; add a first row"),
        (["5,6", "7,8"], r"row 1 names no file beside it or in a folder beside it: '5', '6'"),
        (["a," + 140_000 * "b", *ROWS], r"labels.csv is not a CSV table: field larger than field limit"),
        (["file,label,split", *[f"{row},train" for row in ROWS]], r"no row of the test split; add rows"),
        (
            ["file,label,split", *[f"{row},train" for row in ROWS[:-1]], f"{ROWS[-1]},?"],
            r"row 11: the split is '\?', but must be train, test or validation",
        ),
    ],
)
def test_errors_name_the_row(folder: Path, lines: list[str], message: str) -> None:
    table(folder, *lines)
    with pytest.raises(DataError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_another_encoding_is_an_error(folder: Path) -> None:
    table(folder, "file,label", "im0.png,caf\u00e9", encoding="latin-1")
    with pytest.raises(DataError, match=r"labels.csv is not UTF-8 at byte 22; save it again as CSV in UTF-8"):
        read(folder)


def test_an_ambiguous_name_is_an_error(folder: Path, png: Png) -> None:
    (folder / "images" / "im0.jpg").write_bytes(png())
    table(folder, "id,label", *[f"im{number},{label}" for number, label in enumerate(LABELS)])
    with pytest.raises(DataError, match=r"row 2 names 'im0', which can be '.*im0.jpg', '.*im0.png'"):
        read(folder)


def test_a_table_beside_parquet_shards_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").touch()
    with pytest.raises(DataError, match=r"data.labels is a table .* contains parquet shards"):
        read(tmp_path, labels="labels.csv")
