"""Loading of a dataset: limits, conversion, statistics, fingerprint, errors."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, SheafError, UnknownNameError
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings

needs_data = pytest.mark.skipif(not os.environ.get("SHEAF_DATA"), reason="SHEAF_DATA is not set")

Make = Callable[..., Path]


def write(folder: Path, name: str, size: tuple[int, int] = (4, 6), mode: str = "L", value: int = 5) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value, 0, 2 * value)
    Image.new(mode, size, colour).save(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog", "owl")):
            for number in range(count):
                write(tmp_path, f"{part}/{name}/{number}.png", value=40 * label + number)
    return tmp_path


def load(folder: Path, **keys: object) -> Dataset:
    return load_dataset(DataSettings(name=str(folder), **keys))


def own() -> Dataset:
    inputs = torch.arange(4 * 2 * 2, dtype=torch.float32).view(4, 1, 2, 2)
    part = Samples.of(inputs, torch.tensor([0, 1, 0, 1]))
    return Dataset("mine", part, part.select(torch.tensor([0, 3])), ("a", "b"), (), (), "made up")


def unlabelled() -> Dataset:
    part = Samples.of(torch.zeros(2, 1, 2, 2), torch.tensor([0, -1]))
    return Dataset("mine", part, part, ("a", "b"), (), (), "")


def test_a_folder_becomes_tensors(folder: Path) -> None:
    dataset = load(folder)
    assert dataset.classes == ("cat", "dog", "owl")
    assert dataset.shape == (1, 6, 4)
    assert dataset.train.inputs.dtype == torch.uint8
    assert dataset.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert dataset.train.inputs[:, 0, 0, 0].tolist() == [40 * k + n for k in range(3) for n in range(6)]


def test_the_same_settings_give_the_same_object(folder: Path) -> None:
    assert load(folder) is load(folder)


def test_limits_keep_the_first_of_each_class(folder: Path) -> None:
    dataset = load(folder, limit=7, limit_test=3)
    assert dataset.train.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 40, 41, 80, 81]
    assert dataset.test.labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"data.limit = 2 leaves classes without"):
        load(folder, limit=2)


def test_statistics_are_exact(folder: Path) -> None:
    dataset = load(folder, channels=3)
    pixels = dataset.train.inputs.double() / 255
    assert torch.allclose(torch.tensor(dataset.mean).double(), pixels.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(dataset.std).double(), pixels.std((0, 2, 3), correction=0))


def test_statistics_can_be_set(folder: Path) -> None:
    assert load(folder, mean=(0.5,)).mean == (0.5,)
    assert load(folder, std=(0.25,)).std == (0.25,)
    with pytest.raises(DataError, match=r"data.mean has 3 values, but .* has 1 channels"):
        load(folder, mean=(0.5, 0.5, 0.5))


def test_a_constant_channel_has_standard_deviation_one(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path, f"{part}/a/0.png", value=9)
    assert load(tmp_path).std == (1.0,)


def test_the_fingerprint_depends_on_the_content(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = load(folder).fingerprint
    assert len(whole) == 64
    assert load(folder, mean=(0.1,)).fingerprint == whole
    assert load(folder, limit=17).fingerprint != whole
    write(folder, "train/cat/0.png", value=99)
    assert load(folder, std=(0.1,)).fingerprint != whole


def test_images_of_several_shapes_are_an_error_unless_converted(folder: Path) -> None:
    write(folder, "train/dog/3.png", size=(5, 6))
    write(folder, "test/owl/0.png", mode="RGB")
    with pytest.raises(
        DataError, match=r"2 of 27 images are not 6x4 grey .*dog/3.png is 6x5 grey; set data.size"
    ):
        load(folder)
    assert load(folder, size=(8, 8), channels=1).shape == (1, 8, 8)


def test_a_damaged_image_is_an_error(folder: Path) -> None:
    (folder / "train/dog/3.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"train/dog/3.png cannot be read"):
        load(folder)


def test_a_class_without_test_images_is_an_error(folder: Path) -> None:
    (folder / "train/yak").mkdir()
    write(folder, "train/yak/0.png")
    with pytest.raises(DataError, match="the test split has no image of class 'yak'"):
        load(folder)


def test_settings_for_another_kind_are_errors(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data.rate is for sounds"):
        load(folder, rate=8000)


def test_sounds(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, name in enumerate(("low", "high")):
            (tmp_path / part / name).mkdir(parents=True)
            tone = np.sin(np.arange(4000) * (0.1 + label))
            soundfile.write(tmp_path / part / name / "0.wav", tone, 8000)
    dataset = load(tmp_path)
    assert dataset.shape == (1, 40, 63)
    assert dataset.train.inputs.dtype == torch.float32
    assert load(tmp_path, seconds=0.5).shape == (1, 40, 32)
    soundfile.write(tmp_path / "test/low/1.wav", np.zeros(16000), 16000)
    with pytest.raises(
        DataError, match=r"1 of 5 sounds .* 8000 Hz .*test/low/1.wav has 16000 Hz; set data.rate = 8000"
    ):
        load(tmp_path, seconds=0.6)
    assert load(tmp_path, rate=16000).shape == (1, 40, 63)
    with pytest.raises(DataError, match=r"data.size and data.channels are for images"):
        load(tmp_path, channels=1)


def test_sound_that_is_cut_off_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sheaf")
    for part in ("train", "test"):
        for seconds in (1, 5):
            (tmp_path / part / "bell").mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / part / "bell" / f"{seconds}.wav", np.zeros(seconds * 8000), 8000)
    load(tmp_path, seconds=5.0)
    assert not caplog.text
    message = "data.seconds = 1 cuts off 66.7 % of the sound, in 2 of 4 files; the longest has 5.0 s"
    for count in (1, 2):  # also of the dataset in the cache
        load(tmp_path)
        assert caplog.text.count(message) == count


def test_a_callable_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("user_datasets")
    vars(module).update(own=own, unlabelled=unlabelled)
    monkeypatch.setitem(sys.modules, "user_datasets", module)
    dataset = load_dataset(DataSettings(name="user_datasets:own", limit=2))
    assert dataset.train.labels.tolist() == [0, 1]
    assert dataset.mean == (3.5,)
    assert len(dataset.fingerprint) == 64
    with pytest.raises(DataError, match="labels must be 0 to 1, and range from -1 to 0"):
        load_dataset(DataSettings(name="user_datasets:unlabelled"))
    with pytest.raises(DataError, match=r"must return a sheaf.Dataset"):
        load_dataset(DataSettings(name="builtins:dict"))
    with pytest.raises(SheafError, match="cannot be imported"):
        load_dataset(DataSettings(name="no.such:thing"))


def test_unknown_names_are_errors() -> None:
    with pytest.raises(DataError, match=r"data.labels is for the files of a folder, not digits; remove it"):
        load_dataset(DataSettings(name="digits", labels="labels.csv"))
    with pytest.raises(UnknownNameError, match="did you mean 'mnist'"):
        load_dataset(DataSettings(name="mnits"))
    with pytest.raises(DataError, match="no folder /nowhere/at/all"):
        load_dataset(DataSettings(name="/nowhere/at/all"))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("photos.zip", "is a file, but data.name must be a folder; unpack the archive"),
        ("photos.tar.gz", "is a file, but data.name must be a folder; unpack the archive"),
        ("0000.parquet", "name the folder of the shards: '"),
        ("labels.csv", "name the folder of its files, such as '.*', and set data.labels = '.*labels.csv'"),
        ("photo.png", "one folder per class, or read it in a package.module:callable"),
    ],
)
def test_a_file_is_an_error(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(DataError, match=message):
        load(tmp_path / file)
    with pytest.raises(DataError, match=message):
        load_dataset(DataSettings(name=file), tmp_path)


def test_a_folder_that_is_named_like_a_callable_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = folder.rename(folder.parent / "photos:v2")
    monkeypatch.chdir(renamed.parent)
    with pytest.raises(DataError, match=r"package.module:callable, .* set data.name = './photos:v2'"):
        load_dataset(DataSettings(name="photos:v2"))
    assert load_dataset(DataSettings(name="./photos:v2")).classes == ("cat", "dog", "owl")


def test_a_name_that_is_not_utf8_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'caf\\udce9' is not UTF-8"):
        load_dataset(DataSettings(name="caf\udce9"))


def test_relative_folders_are_looked_up_in_the_root(folder: Path) -> None:
    settings = DataSettings(name=folder.name)
    assert load_dataset(settings, folder.parent).classes == ("cat", "dog", "owl")


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "classes"), [("fsdd", (1, 40, 63), 10), ("tinyimagenet32-a", (3, 32, 32), 100)]
)
def test_real_folders(name: str, shape: tuple[int, int, int], classes: int) -> None:
    path = Path(os.environ["SHEAF_DATA"]) / name
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    dataset = load(path, limit=300, limit_test=100)
    assert dataset.shape == shape
    assert len(dataset.classes) == classes
    assert len(dataset.train) == 300
