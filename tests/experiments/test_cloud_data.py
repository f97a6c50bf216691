"""The cloud's data of a real fleet: test images are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import one_line

from sheaf.core.errors import DataError
from sheaf.data.device_data import load_device_data
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare

COUNTS = {"a": [4, 4]}


def images(folder: Path, *class_folders: str, count: int = 10) -> Path:
    draws = np.random.default_rng(4)
    for name in class_folders:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = draws.integers(256, size=(4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def cloud(folder: Path, *changes: str) -> ExperimentSetup:
    settings = (f"data.name={folder}", "model.options.hidden=4", *changes)
    return prepare(load_experiment("ecavg-digits", settings), None, COUNTS)


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_folder_with_test_images_only(tmp_path: Path, cache: str) -> None:
    folder = images(tmp_path / "d", "test/cat", "test/dog")
    for _ in range(2):  # the second time from the cache
        setup = cloud(folder, f"data.cache={cache}")
        assert (len(setup.dataset.train), len(setup.dataset.test)) == (0, 20)
        assert setup.dataset.train.inputs.shape[1:] == (1, 4, 4)
        (note,) = setup.notes
        assert note.endswith("of the 20 test examples; data.mean and data.std set others")
    with pytest.raises(DataError, match="has no training examples, which only the cloud") as error:
        prepare(load_experiment("ecavg-digits", (f"data.name={folder}",)))
    one_line(error)
    with pytest.raises(DataError, match="has no training examples; put them into one folder per class"):
        load_device_data(DataSettings(name=str(folder)), ("cat", "dog"))


def test_a_plain_folder_is_split_with_a_note_or_all_of_it_is_test_data(tmp_path: Path) -> None:
    folder = images(tmp_path / "d", "cat", "dog")
    split = cloud(folder)
    assert 0 < len(split.dataset.test) < 20
    (note,) = split.notes[-1:]
    assert f"{len(split.dataset.test)} of 20 examples, the test split, are the cloud's test data" in note
    assert "data.test_share = 1 uses all" in note
    assert len(cloud(folder, "data.test_share=1").dataset.test) == 20


def test_a_test_shard_is_enough(tmp_path: Path) -> None:
    files = sorted(images(tmp_path / "images", "cat", "dog").glob("*/*.png"))
    rows = {
        "image": [{"bytes": path.read_bytes()} for path in files],
        "label": [p.parent.name for p in files],
    }
    folder = tmp_path / "shards"
    folder.mkdir()
    pq.write_table(pa.table(rows), folder / "test-00000-of-00001.parquet")
    setup = cloud(folder)
    assert (len(setup.dataset.train), len(setup.dataset.test)) == (0, 20)
    assert setup.dataset.classes == ("cat", "dog")
    with pytest.raises(DataError, match="has no training examples, which only the cloud"):
        prepare(load_experiment("ecavg-digits", (f"data.name={folder}",)))


@pytest.mark.parametrize("split_by", ["folder", "column"])
def test_a_table_of_test_files_is_enough(tmp_path: Path, split_by: str) -> None:
    folder = images(tmp_path / "d", "test" if split_by == "folder" else "images")
    header, end = ("file,label", "") if split_by == "folder" else ("file,label,split", ",test")
    rows = [f"{number}.png,{'cat' if number % 2 else 'dog'}{end}" for number in range(10)]
    (folder / "labels.csv").write_text("\n".join([header, *rows]))
    setup = cloud(folder)
    assert (len(setup.dataset.train), len(setup.dataset.test)) == (0, 10)
    assert setup.dataset.classes == ("cat", "dog")
