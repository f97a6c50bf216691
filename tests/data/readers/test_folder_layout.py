"""Layouts of folders as people and tools make them."""

import os
from pathlib import Path

import pytest

from sheaf.core.errors import DataError
from sheaf.data.readers.folder_layout import check_depth, class_folders, find_splits


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def found(folder: Path) -> tuple[str, ...] | None:
    splits = find_splits(folder)
    return splits and tuple(path.name if path else "" for path in splits)


def test_a_class_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"caf\\udce9' is not UTF-8; rename") as caught:
        class_folders(tmp_path)
    assert str(caught.value).isascii()


def test_two_normal_forms_of_one_name_are_an_error(tmp_path: Path) -> None:
    make(tmp_path, "caf\u00e9/1.png", "cafe\u0301/1.png")
    with pytest.raises(DataError, match="equal in Unicode's normal form C; merge"):
        class_folders(tmp_path)


def test_leftovers_of_file_managers_are_ignored(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "__MACOSX/cat/1.png", ".git/x", "Thumbs.db", "@eaDir/x")
    assert list(class_folders(tmp_path)) == ["cat"]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ("bus car", None),
        ("Train TEST", ("Train", "TEST")),
        ("Training Testing", ("Training", "Testing")),
        ("training_set test_set", ("training_set", "test_set")),
        ("train val", ("train", "val")),
        ("train Validation", ("train", "Validation")),
        ("train valid test", ("train", "test")),
        ("test", ("", "test")),
    ],
)
def test_split_folders(tmp_path: Path, folders: str, splits: tuple[str, ...] | None) -> None:
    make(tmp_path, *(f"{name}/cat/1.png" for name in folders.split()))
    assert found(tmp_path) == splits


def test_a_table_beside_class_folders_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sheaf")
    check_depth(make(tmp_path, "part_1/1.png", "part_2/2.png", "metadata.csv"))
    assert "metadata.csv is not read: the names of the class folders are the labels" in caplog.text


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    assert found(make(tmp_path, "valley/1.png", "trainer/1.png")) is None
    assert found(make(tmp_path, "bus/1.png", "car/1.png", "train/1.png")) is None


def test_the_choice_of_a_validation_folder_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sheaf")
    make(tmp_path, "train/cat/1.png", "val/cat/1.png", "test/1.png")  # unlabelled test files
    assert found(tmp_path) == ("train", "val")
    make(tmp_path, "test/cat/1.png")
    assert found(tmp_path) == ("train", "test")
    assert [record.getMessage().partition("/val ")[2] for record in caplog.records] == [
        "is the test split: there is no test folder with classes",
        "is left out: train and test are the splits of the dataset",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("train/cat/1.png dog/1.png", "must contain either train and test or one folder per class"),
        ("train/cat/1.png Train/cat/1.png", "'Train', 'train', which mean the same split; keep one"),
        ("train/cat/1.png", r"no test folder; add test, or set data.name = '.*/train'"),
        ("train/1.png test/1.png", "'test', 'train', which contain no class folders; move"),
        ("train/cat.1.png test1/1.png", "'test1', 'train', which contain no class folders; move"),
        ("train/cat/1.png test/1.png", "test contains no class folders; move"),
    ],
)
def test_incomplete_splits_are_errors(tmp_path: Path, files: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_splits(make(tmp_path, *files.split()))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("photos/cat/1.png photos/dog/1.png", "data.name = '.*/photos'"),
        ("a/b/cat/1.png a/b/dog/1.png", "data.name = '.*/a/b'"),
        ("a/train/cat/1.png a/test/cat/1.png", "data.name = '.*/a'"),
        ("client-1/cat/1.png client-2/dog/1.png", "such as '.*/client-1'"),
        ("images/1.png labels.json", "labels are not read from labels.json; save it as a CSV table"),
        ("1.png labels.xlsx", "labels are not read from labels.xlsx; save it as a CSV table"),
    ],
)
def test_other_depths_are_errors(tmp_path: Path, files: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_depth(make(tmp_path, *files.split()))


def test_a_split_with_one_level_too_many_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "train/photos/cat/1.png", "train/photos/dog/1.png")
    with pytest.raises(DataError, match=r"one level too many; move the class folders into .*train"):
        check_depth(tmp_path / "train", is_split=True)
