"""The cache of decoded examples: equal data from it, decoded anew after any change, never in the way."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch
from PIL import Image

from sheaf.core.dataset import Dataset
from sheaf.core.errors import DataError
from sheaf.data import load
from sheaf.data.device_data import load_device_data
from sheaf.data.example_cache import PARTIAL, entries, examples_folder, new_entry
from sheaf.data.readers import decode as decoding
from sheaf.data.settings import DataSettings

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 4, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images each of two classes, and a validation folder that is left out with a note."""
    for number, pixels in enumerate(PIXELS):
        split = "test" if number % 5 == 0 else "val" if number % 5 == 1 else "train"
        path = tmp_path / "set" / split / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "set"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The locations of the images that are decoded."""
    locations: list[str] = []
    decode_one = decoding.decode_with_bits

    def count(location: str, *arguments: Any) -> Any:
        locations.append(location)
        return decode_one(location, *arguments)

    monkeypatch.setattr(decoding, "decode_with_bits", count)
    return locations


def read(folder: Path, **keys: Any) -> Dataset:
    """Load as another process would: without the datasets in memory."""
    load._load_with_notes.cache_clear()
    return load.load_dataset(DataSettings(name=str(folder), **keys))


def same(one: Dataset, other: Dataset) -> bool:
    for a, b in ((one.train, other.train), (one.test, other.test)):
        equal = torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
        if not equal or a.inputs.dtype != b.inputs.dtype:
            return False
    rest = {field.name for field in fields(Dataset)} - {"train", "test"}
    return all(getattr(one, name) == getattr(other, name) for name in rest)


def test_the_second_read_decodes_nothing(
    folder: Path, decoded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain = read(folder, cache=False)
    assert entries() == []
    notes = caplog.messages.copy()
    assert "val is left out" in notes[0]
    for _ in range(2):
        decoded.clear()
        caplog.clear()
        assert same(read(folder), plain)
        assert caplog.messages == notes
    assert decoded == []
    (entry,) = entries()
    assert (entry.name, entry.source) == (str(folder), os.path.realpath(folder))
    assert entry.shapes == ((12, 3, 6, 4), (4, 3, 6, 4))
    assert entry.size > 16 * 3 * 6 * 4


def test_sounds_and_deep_images_keep_their_conversion(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for number in range(8):
        for kind in ("sounds", "deep"):
            (tmp_path / kind / str(number % 2)).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"sounds/{number % 2}/{number}.wav", draws.normal(size=4000) / 9, 8000)
        values = draws.integers(0, 4096, (5, 5)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"deep/{number % 2}/{number}.png")
    for kind in ("sounds", "deep"):
        plain = read(tmp_path / kind, cache=False)
        assert plain.sound or plain.bits == 12
        assert same(read(tmp_path / kind), plain)
        assert same(read(tmp_path / kind), plain)


def test_another_state_of_the_files_is_another_entry(folder: Path, decoded: list[str]) -> None:
    first = read(folder)
    path = folder / "train/cat/2.png"
    state = path.stat()
    content = path.read_bytes()
    Image.fromarray(255 - PIXELS[2]).save(path)
    assert path.stat().st_size == len(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # same size and time of the content
    decoded.clear()
    assert read(folder).fingerprint != first.fingerprint
    assert len(decoded) == 16
    assert len(entries()) == 1  # the former state is of no use
    (folder / "train/cat/.DS_Store").touch()
    decoded.clear()
    read(folder)
    assert decoded == []


def test_only_settings_of_decoding_make_an_entry(folder: Path, decoded: list[str]) -> None:
    plain = read(folder)
    decoded.clear()
    other = read(folder, mean=(0.1, 0.2, 0.3), held_out=0.5)
    assert decoded == []
    assert (other.mean, other.std) == ((0.1, 0.2, 0.3), plain.std)
    assert read(folder, channels=1).shape == (1, 6, 4)
    assert len(read(folder, limit=6).train) == 6
    assert len(entries()) == 3


def test_a_device_reads_its_folder_once(folder: Path, decoded: list[str]) -> None:
    settings = DataSettings(name=str(folder))
    first = load_device_data(settings, ("bird", "dog", "cat"))
    decoded.clear()
    second = load_device_data(settings, ("bird", "dog", "cat"))
    assert decoded == []
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert set(second.train.labels.tolist()) == {1, 2}


@pytest.mark.parametrize("damage", ["truncated", "swapped", "card", "no card", "no labels"])
def test_a_damaged_entry_is_made_again(
    folder: Path, decoded: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = read(folder)
    (entry,) = entries()
    name = {"card": "card.json", "no card": "card.json", "no labels": "test.labels.npy"}
    path = entry.folder / name.get(damage, "train.inputs.npy")
    content = path.read_bytes()
    path.unlink()  # a mapping of the file stays as it is
    if damage == "truncated":
        path.write_bytes(content[:200])
    elif damage == "swapped":
        shutil.copy(entry.folder / "test.inputs.npy", path)
    elif damage == "card":
        path.write_text('{"name": 3')
    decoded.clear()
    with caplog.at_level(logging.INFO):
        assert same(read(folder), first)
    assert len(decoded) == 16
    decoded.clear()
    assert same(read(folder), first)
    assert decoded == []


def test_a_full_disk_is_a_note(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = read(folder, cache=False)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    with caplog.at_level(logging.INFO):
        assert same(read(folder), plain)
    assert "16 images of 6x4 colour need 0.0 GB, but the disk of" in caplog.text
    assert caplog.text.count("val is left out") == 1
    assert entries() == []
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(500))
    with pytest.raises(DataError, match=r"16 images .* memory, but .* data.limit, or SHEAF_CACHE"):
        read(folder)
    assert list(examples_folder().iterdir()) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of at most 300 bytes: the next write fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_failing_write_is_a_note(folder: Path, small_files: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        dataset = read(folder)
    assert same(dataset, read(folder, cache=False))
    assert "the decoded examples are not cached:" in caplog.text
    assert "train.inputs.npy: File too large" in caplog.text
    assert list(examples_folder().iterdir()) == []


def test_a_cache_that_cannot_be_made_is_a_note(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file")
    with caplog.at_level(logging.INFO):
        dataset = read(folder)
    assert same(dataset, read(folder, cache=False))
    assert "not cached" in caplog.text
    assert "set SHEAF_CACHE" in caplog.text


def test_files_that_change_while_they_are_read_are_not_cached(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode_one = decoding.decode_with_bits

    def touch_another(*arguments: Any) -> Any:
        os.utime(folder / "train/cat/2.png")
        return decode_one(*arguments)

    monkeypatch.setattr(decoding, "decode_with_bits", touch_another)
    with caplog.at_level(logging.INFO):
        read(folder)
    assert "changed while it was read" in caplog.text
    assert entries() == []


SCRIPT = """
import json, sys
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
dataset = load_dataset(DataSettings(name=sys.argv[1]))
print(json.dumps([dataset.fingerprint, int(dataset.train.inputs.sum(dtype=int))]))
"""


def test_processes_that_fill_it_at_once_are_right(folder: Path, fork_server: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [fork_server / "python", script, folder]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate()[0] for process in processes}
    plain = read(folder, cache=False)
    assert [json.loads(answer) for answer in answers] == [
        [plain.fingerprint, int(plain.train.inputs.sum(dtype=torch.int64))]
    ]
    assert [path.name for path in examples_folder().iterdir()] == [entry.folder.name for entry in entries()]
    assert len(entries()) == 1


def test_what_a_killed_process_left_is_neither_used_nor_kept(folder: Path) -> None:
    with new_entry() as writing:
        abandoned = writing.with_name(f"{PARTIAL}1")
        shutil.copytree(writing, abandoned)
        for path in (writing, abandoned):
            os.utime(path, (time.time() - 100,) * 2)
        read(folder)
        assert not abandoned.exists()
        assert writing.exists()  # its writer is alive


def test_a_program_that_writes_to_the_inputs_leaves_the_cache_as_it_is(folder: Path) -> None:
    first = read(folder)
    before = first.train.inputs.clone()
    first.train.inputs.zero_()
    assert torch.equal(read(folder).train.inputs, before)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_examples_are_mapped_not_copied(tmp_path: Path) -> None:
    for number in range(16):
        path = tmp_path / "big" / str(number % 2) / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2000, 1000), number).save(path)
    read(tmp_path / "big")
    before = psutil.Process().memory_info()
    dataset = read(tmp_path / "big")
    assert dataset.train.inputs.max() == 15  # all are in memory now, as pages of the file
    after = psutil.Process().memory_info()
    anonymous = (after.rss - after.shared) - (before.rss - before.shared)
    assert anonymous < 0.2 * dataset.train.inputs.nbytes
