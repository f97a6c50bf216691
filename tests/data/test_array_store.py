"""Arrays of decoded examples in memory and in mapped files."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch

from sheaf.core.errors import DataError
from sheaf.data.array_store import ArrayStore, FileStore, MemoryStore, map_array
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_values_are_appended_in_order(kind: str, dtype: Any, tmp_path: Path) -> None:
    values = np.arange(100 * 12).reshape(100, 2, 3, 2).astype(dtype)
    store: ArrayStore = MemoryStore() if kind == "memory" else FileStore(tmp_path)
    column = store.column("train.inputs", 120, (2, 3, 2), dtype)
    column.append(values[:1])
    column.append(values[1:60].transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2))  # another order in memory
    column.append(values[60:])
    assert torch.equal(column.finish(), torch.from_numpy(values))
    if kind == "file":
        assert np.array_equal(np.load(tmp_path / "train.inputs.npy"), values)


def test_an_empty_column(tmp_path: Path) -> None:
    assert FileStore(tmp_path).column("test.inputs", 5, (1, 2, 2), np.uint8).finish().shape == (0, 1, 2, 2)


def test_a_second_column_of_a_name_leaves_the_mapping_of_the_first(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    mapped = []
    for value in (1, 2):
        column = store.column("train.inputs", 4, (1000,), np.uint8)
        column.append(np.full((4, 1000), value, np.uint8))
        mapped.append(column.finish())
    assert [int(tensor.max()) for tensor in mapped] == [1, 2]


def test_columns_that_are_not_finished_are_closed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.column("train.inputs", 4, (10,), np.uint8).append(np.zeros((1, 10), np.uint8))
    store.close()  # otherwise a ResourceWarning fails the test
    assert (tmp_path / "train.inputs.npy").exists()


@pytest.mark.parametrize("size", [3, 200, 1127, 1200])
def test_files_of_another_size_than_their_header_are_refused(size: int, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 100), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    assert len(content) == 1128
    (tmp_path / "a.npy").write_bytes(content[:size].ljust(size, b"\0"))
    with pytest.raises((ValueError, EOFError)):
        map_array(tmp_path / "a.npy")


def test_objects_in_files_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        map_array(tmp_path / "a.npy")


def test_more_sounds_than_memory_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"{number % 2}/{number}.wav", np.full(8000, number / 9), 8000)
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(8 * 40 * 63 * 4 - 1))
    settings = DataSettings(name=str(tmp_path), seconds=1.0, cache=False)
    with pytest.raises(
        DataError,
        match=r"8 sounds of 1 s at 8000 Hz need .* memory, .* smaller data.seconds, .*cache = true",
    ):
        load_dataset(settings)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(8 * 40 * 63 * 4))
    assert load_dataset(settings).shape == (1, 40, 63)
