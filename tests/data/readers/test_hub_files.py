"""Configurations and splits of the parquet files of a repository."""

from typing import Any

import pytest

from sheaf.core.errors import DataError
from sheaf.data.readers.hub_files import choose_config, choose_splits, is_parquet


def config(
    files: str, entries: list[Any] | None = None, name: str | None = None
) -> tuple[str, dict[str, Any]]:
    return choose_config("someone/pets", files.split(), entries or [], name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            "data/train-00000-of-00001.parquet data/test-00000-of-00001-9e3f.parquet",
            ("default", "test train"),
        ),
        ("train.parquet val.parquet", ("default", "train val")),
        ("plain/train-0-of-1.parquet plain/dev-0-of-1.parquet", ("plain", "dev train")),
        ("en/train/0000.parquet en/train/0001.parquet en/fold1/0000.parquet", ("en", "fold1 train")),
        ("data/en/train-0-of-1.parquet", ("en", "train")),
        ("pets.parquet", ("default", "train")),
        ("default/train/0000.parquet other/train/0000.parquet", ("default", "train")),
    ],
)
def test_paths_show_configurations_and_splits(files: str, expected: tuple[str, str]) -> None:
    name, splits = config(files)
    assert (name, " ".join(sorted(splits))) == expected


def test_a_configuration_is_chosen_among_several() -> None:
    files = "en/train-0-of-1.parquet fr/train-0-of-1.parquet"
    assert config(files, name="fr") == ("fr", {"train": ["fr/train-0-of-1.parquet"]})
    with pytest.raises(DataError, match=r"several configurations; choose one with data.config: 'en', 'fr'"):
        config(files)
    with pytest.raises(DataError, match=r"no configuration 'de' .* choose one of these .*: 'en', 'fr'"):
        config(files, name="de")


@pytest.mark.parametrize(
    "data_files",
    [
        [{"split": "train", "path": "a/tr*.parquet"}, {"split": "test", "path": ["a/te*.parquet"]}],
        {"train": "a/tr*.parquet", "test": "./a/te*.parquet"},
        ["a/*.parquet"],
        "a/**/*.parquet",
    ],
)
def test_declared_configurations(data_files: Any) -> None:
    files = "a/train-0-of-1.parquet a/test-0-of-1.parquet b/train.parquet"
    entries = [
        {"config_name": "b", "data_files": "b/*"},
        {"config_name": "a", "data_files": data_files, "default": True},
        "malformed",
        {"config_name": 5},
        {"config_name": "csv", "data_files": "*.csv"},
    ]
    splits = {"train": ["a/train-0-of-1.parquet"], "test": ["a/test-0-of-1.parquet"]}
    assert config(files, entries) == ("a", splits)
    assert config(files, entries, "b") == ("b", {"train": ["b/train.parquet"]})


def test_a_declared_folder() -> None:
    entries = [{"config_name": "a", "data_dir": "a"}]
    assert config("a/train.parquet b/train.parquet", entries) == ("a", {"train": ["a/train.parquet"]})


def test_splits() -> None:
    assert choose_splits("r", {"training": ["1"], "dev": ["2"], "val": ["3"]}, None) == {
        "train": ["1"],
        "validation": ["3"],
    }
    assert choose_splits("r", {"all": ["1"]}, None) == {"train": ["1"]}
    folds = {"fold1": ["1"], "fold2": ["2"]}
    assert choose_splits("r", folds, ("fold2", "fold1")) == {"train": ["2"], "test": ["1"]}
    with pytest.raises(DataError, match=r"no train split; choose with data.splits .*: 'fold1', 'fold2'"):
        choose_splits("r", folds, None)
    with pytest.raises(DataError, match=r"no split 'fold3'; set data.splits to two of these: 'fold1'"):
        choose_splits("r", folds, ("fold1", "fold3"))
    with pytest.raises(DataError, match=r"data.splits names 'fold1' twice"):
        choose_splits("r", folds, ("fold1", "fold1"))
    with pytest.raises(DataError, match=r"several splits for train; choose with data.splits"):
        choose_splits("r", {"train": ["1"], "training": ["2"]}, None)
    with pytest.raises(DataError, match=r"converted only a part of it \('partial-train'\)"):
        choose_splits("r", {"partial-train": ["1"], "test": ["2"]}, None)


def test_parquet_files_are_not_hidden() -> None:
    assert is_parquet("data/train.PARQUET")
    assert not is_parquet(".cache/train.parquet")
    assert not is_parquet("../train.parquet")
    assert not is_parquet("data/train.csv")
