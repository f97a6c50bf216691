"""Folders of a user, with one subfolder per class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sheaf.core.errors import DataError
from sheaf.data.readers.any_folder import read_any_folder
from sheaf.data.settings import DataSettings

Png = Callable[..., bytes]


def read(folder: Path):
    return read_any_folder(folder, DataSettings(name="x", test_share=0.2))


@pytest.fixture
def folder(tmp_path: Path, png: Png) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(50):
            (tmp_path / name / f"{name}{number}.PNG").write_bytes(png(number))
    return tmp_path


def names(split) -> set[str]:
    return {location for location, _ in split.items(np.arange(len(split.labels)))}


def test_a_fraction_of_the_files_forms_the_test_split(folder: Path) -> None:
    encoded = read(folder)
    assert encoded.classes == ("cat", "dog")
    assert encoded.kind == "image"
    assert len(encoded.train.labels) + len(encoded.test.labels) == 100
    assert 8 <= len(encoded.test.labels) <= 32
    assert not names(encoded.train) & names(encoded.test)


def test_adding_files_does_not_move_others(folder: Path, png: Png) -> None:
    before = read(folder)
    for number in range(50, 80):
        (folder / "cat" / f"cat{number}.png").write_bytes(png())
    after = read(folder)
    assert names(before.test) <= names(after.test)
    assert names(before.train) <= names(after.train)


def test_train_and_test_folders(folder: Path, png: Png) -> None:
    for part in ("train", "test"):
        (folder / part).mkdir()
    for name in ("cat", "dog"):
        (folder / name).rename(folder / "train" / name)
        (folder / "test" / name).mkdir()
        (folder / "test" / name / "one.png").write_bytes(png())
    encoded = read(folder)
    assert len(encoded.train.labels) == 100
    assert encoded.test.labels.tolist() == [0, 1]
    (folder / "test" / "owl").mkdir()
    with pytest.raises(DataError, match=r"classes that .*train does not have: 'owl'"):
        read(folder)


def test_sounds(tmp_path: Path) -> None:
    for name in ("no", "yes"):
        (tmp_path / name).mkdir()
        for number in range(2):
            soundfile.write(tmp_path / name / f"{number}.wav", np.zeros(8000), 8000)
    assert read(tmp_path).kind == "sound"


def test_hidden_files_are_ignored(folder: Path) -> None:
    (folder / "cat" / ".DS_Store").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / "README.md").write_text("about")
    assert read(folder).classes == ("cat", "dog")


def test_other_files_in_a_class_folder_are_errors(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("about")
    with pytest.raises(DataError, match=r"cat/notes.txt is no image file"):
        read(folder)
    (folder / "cat" / "notes.txt").unlink()
    (folder / "cat" / "more").mkdir()
    with pytest.raises(DataError, match=r"cat/more is a folder"):
        read(folder)


def test_an_image_outside_the_class_folders_is_an_error(folder: Path, png: Png) -> None:
    (folder / "lost.png").write_bytes(png())
    with pytest.raises(DataError, match=r"lost.png is in no class folder"):
        read(folder)


def test_an_empty_class_is_an_error(folder: Path) -> None:
    (folder / "owl").mkdir()
    with pytest.raises(DataError, match="owl is empty"):
        read(folder)


def test_train_beside_classes_is_an_error(folder: Path) -> None:
    (folder / "train" / "owl").mkdir(parents=True)
    with pytest.raises(DataError, match="must contain either train and test"):
        read(folder)


def test_a_folder_without_known_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no file"):
        read(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"only files that end in '.txt'"):
        read(tmp_path)


def test_images_and_sounds_together_are_an_error(folder: Path) -> None:
    soundfile.write(folder / "cat" / "1.wav", np.zeros(80), 8000)
    with pytest.raises(DataError, match="both images and sounds"):
        read(folder)


def test_symbolic_links_to_class_folders_are_followed(folder: Path, tmp_path_factory) -> None:
    subset = tmp_path_factory.mktemp("subset")
    for name in ("cat", "dog"):
        (subset / name).symlink_to(folder / name)
    assert read(subset).train.labels.tolist() == read(folder).train.labels.tolist()
    (subset / "owl").symlink_to(folder / "owl")
    with pytest.raises(DataError, match="owl is a symbolic link to a missing file"):
        read(subset)


def test_a_loop_of_symbolic_links_ends(folder: Path) -> None:
    (folder / "cat" / "up").symlink_to(folder)
    with pytest.raises(DataError, match="cat/up is a folder"):
        read(folder)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_class_of_two_files_has_training_and_test_files(tmp_path: Path, png: Png, count: int) -> None:
    for number in range(20):
        (tmp_path / f"c{number:02}").mkdir()
        for image in range(count):
            (tmp_path / f"c{number:02}" / f"{number}-{image}.png").write_bytes(png())
    encoded = read(tmp_path)
    assert set(encoded.train.labels.tolist()) == set(encoded.test.labels.tolist()) == set(range(20))
    assert not names(encoded.train) & names(encoded.test)


def test_an_empty_split_is_an_error(tmp_path: Path, png: Png) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png())
    with pytest.raises(DataError, match=r"data.test_share = 0.2 leaves the test split empty"):
        read(tmp_path)


def test_normal_forms_of_a_class_name_are_equal(tmp_path: Path, png: Png) -> None:
    for part, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        (tmp_path / part / name).mkdir(parents=True)
        (tmp_path / part / name / "1.png").write_bytes(png())
    encoded = read(tmp_path)
    assert encoded.classes == ("caf\u00e9",)
    assert encoded.test.labels.tolist() == [0]


def test_the_lists_of_speech_commands_decide_the_split(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", "sheaf")
    for name in ("no", "yes", "_background_noise_"):
        (tmp_path / name).mkdir()
        for number in range(4):
            soundfile.write(tmp_path / name / f"{number}.wav", np.zeros(80), 8000)
    (tmp_path / "_background_noise_" / "README.md").write_text("about")
    (tmp_path / "validation_list.txt").write_text("no/0.wav\nyes/0.wav\n")
    encoded = read(tmp_path)
    assert encoded.classes == ("no", "yes")
    assert names(encoded.test) == {str(tmp_path / name / "0.wav") for name in ("no", "yes")}
    assert len(encoded.train.labels) == 6
    (tmp_path / "testing_list.txt").write_text("no/1.wav\r\nyes/1.wav\r\nyes/9.wav\r\n")
    encoded = read(tmp_path)
    assert names(encoded.test) == {str(tmp_path / name / "1.wav") for name in ("no", "yes")}
    assert len(encoded.train.labels) == 4
    assert "the 2 files of validation_list.txt are left out" in caplog.text
    assert "_background_noise_ is left out" in caplog.text
    (tmp_path / "testing_list.txt").write_text("")
    with pytest.raises(DataError, match=r"testing_list.txt lists no file"):
        read(tmp_path)


def test_an_unusual_fraction_is_noted(tmp_path: Path, png: Png, caplog) -> None:
    caplog.set_level("INFO", "sheaf")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(12):  # the same names in each class
            (tmp_path / name / f"im{number:03}.png").write_bytes(png())
    encoded = read(tmp_path)
    count = len(encoded.test.labels)
    assert count == 10
    assert "10 of 24 files are the test split with data.test_share = 0.2: the hash of" in caplog.text
