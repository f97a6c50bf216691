"""Shared samples: image files give the bits of the tensors in fewer bytes, and hostile ones are refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import one_line
from torch import Tensor

from sheaf.core.dataset import Dataset
from sheaf.core.errors import DataError
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import count_samples, encode_samples
from sheaf.data.device_data import load_device_data, save_device_data
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.data.shared_samples import decode_shared, encode_shared, shared_files

SHAPE = (3, 32, 32)
SECRET = b"52.5163 N 13.3777 E"


def photo(number: int, rows: int = 32, columns: int = 32) -> Image.Image:
    y, x = np.mgrid[:rows, :columns] / 32
    colours = [np.sin(number + y * 2), np.cos(number * x), x * y]
    return Image.fromarray((127 + 120 * np.stack(colours, -1).clip(-1, 1)).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of two classes: small JPEG files of several sizes, and some that leave as tensors."""
    folder = tmp_path_factory.mktemp("pictures")
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    turned = Image.Exif()
    turned[0x0112] = 6
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8))
    for split, count in (("train", 10), ("test", 2)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number == 4:
                noise.save(path.with_suffix(".png"))
            elif number == 5:
                photo(number).save(path.with_suffix(".jpg"), exif=turned)
            elif number == 6:
                photo(number).save(path.with_suffix(".webp"))
            elif number == 7:
                photo(number).convert("L").save(path.with_suffix(".png"))
            else:
                size = 32 + 16 * (number % 3)
                photo(number, size, size).save(path.with_suffix(".jpg"), exif=exif, quality=60)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return load_dataset(DataSettings(name=str(folder), size=(32, 32), channels=3, cache=False))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, unique=True))
def test_files_give_the_bits_of_tensors(dataset: Dataset, positions: list[int]) -> None:
    samples = dataset.train.select(torch.tensor(positions))
    blob, plain = encode_shared(samples, None), encode_samples(samples)
    shared = decode_shared(blob, SHAPE, None)
    assert torch.equal(shared.inputs, samples.inputs[samples.positions])
    assert torch.equal(shared.labels, samples.labels)
    assert blob.size <= plain.size
    assert count_samples(blob) == len(positions)
    assert SECRET not in blob.source  # type: ignore[operator]


def test_most_pictures_are_sent_as_files_and_metadata_stay(dataset: Dataset) -> None:
    blob = encode_shared(dataset.train, None)
    sent = [len(content) for content in shared_files(blob)]
    # In the order of classes: 0 2 4 6 8, 1 3 5 7 9. Too large, not JPEG or PNG, and turned by its metadata.
    assert [number for number, size in enumerate(sent) if size == 0] == [2, 3, 7]
    assert blob.size < encode_samples(dataset.train).size / 1.9


def test_without_originals_only_files_of_the_same_size_and_channels_leave(dataset: Dataset) -> None:
    blob = encode_shared(dataset.train, None, originals=False)
    sent = [number for number, content in enumerate(shared_files(blob)) if content]
    assert sent == [0, 6, 9], "pictures 0, 3 and 9; the others are larger, or grey"
    assert torch.equal(decode_shared(blob, SHAPE, None).inputs, dataset.train.inputs)


def test_a_picture_that_changed_on_the_disk_is_sent_as_it_was_read(folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.rglob("*.*")):
        (tmp_path / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    form = DataSettings(name=str(tmp_path), size=(32, 32), channels=3, cache=False)
    own = load_device_data(form, ("a", "b"))
    photo(99).save(tmp_path / "train/a/0.jpg")
    (tmp_path / "train/a/2.jpg").unlink()
    blob = encode_shared(own.train, None)
    assert torch.equal(decode_shared(blob, SHAPE, None).inputs, own.train.inputs)
    assert shared_files(blob)[:2] == [b"", b""], "the listing was made when the first file was read"


def test_files_are_kept_in_the_file_of_a_rehearsed_device(dataset: Dataset, tmp_path: Path) -> None:
    some = replace(dataset.train, positions=torch.tensor([1, 2, 8, 9]))
    save_device_data(tmp_path / "own.safetensors", some, dataset.test, dataset.classes)
    own = load_device_data(DataSettings(name=str(tmp_path / "own.safetensors")), dataset.classes)
    assert encode_shared(own.train, None).sha256 == encode_shared(some, None).sha256


def test_samples_without_files_are_tensors(dataset: Dataset) -> None:
    bare = replace(dataset.train, read_file=None)
    assert encode_shared(bare, None).sha256 == encode_samples(bare).sha256


def png_of(columns: int, rows: int) -> bytes:
    """Return the smallest PNG whose header states this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def one_file(content: bytes) -> dict[str, Tensor]:
    return {
        "inputs": torch.zeros(0, *SHAPE, dtype=torch.uint8),
        "labels": torch.zeros(1, dtype=torch.int64),
        "lengths": torch.tensor([len(content)], dtype=torch.int32),
        "files": torch.frombuffer(bytearray(content), dtype=torch.uint8),
        "digest": torch.zeros(16, dtype=torch.uint8),
    }


def jpeg(**more: object) -> bytes:
    file = io.BytesIO()
    photo(1).save(file, "JPEG", **more)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: one_file(png_of(60_000, 60_000)), "could be decompression bomb"),
        (lambda _: one_file(png_of(12_000, 8_000)), "8000x12000 pixels exceed 64 times the 32x32"),
        (lambda _: one_file(png_of(200, 200)), "it cannot be read"),
        (lambda _: one_file(b"BM" + bytes(60)), "neither a JPEG nor a PNG"),
        (lambda _: one_file(jpeg(comment=SECRET)), "it has metadata"),
        (lambda own: own | {"digest": own["digest"] + 1}, "decode to other pixels .* files = 'none'"),
        (
            lambda own: own | {"digest": own["digest"][:3]},
            "digest of shared samples have a wrong type or shape",
        ),
        (lambda own: own | {"lengths": own["lengths"].long()}, "wrong type or shape"),
        (lambda own: own | {"lengths": own["lengths"][:3]}, "wrong type or shape"),
        (lambda own: own | {"labels": own["labels"][:, None]}, "wrong type or shape"),
        (lambda own: own | {"lengths": -own["lengths"]}, "not smaller than its sample"),
        (lambda own: own | {"lengths": own["lengths"] + 3000}, "not smaller than its sample"),
        (lambda own: own | {"files": own["files"][1:]}, "shared files have .* bytes instead of"),
        (lambda own: own | {"inputs": own["inputs"][1:]}, r"shared samples are \(2, 3, 32, 32\)"),
        (lambda own: own | {"inputs": own["inputs"].float()}, "float32, not"),
        (lambda own: own | {"run": own["digest"]}, "have the tensors"),
        (lambda own: {"files": own["files"]}, "have the tensors"),
    ],
)
def test_a_hostile_message_is_refused(
    dataset: Dataset, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    own = encode_shared(dataset.train, None).open()
    with pytest.raises(DataError, match=message) as error:
        decode_shared(Blob.of(change(own)), SHAPE, None)
    one_line(error)


@settings(max_examples=30)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=4))
def test_changed_files_are_refused_or_unchanged(dataset: Dataset, at: int, change: bytes) -> None:
    own = encode_shared(dataset.train, None).open()
    files = bytearray(own["files"].numpy().tobytes())
    at = min(at, len(files) - len(change))
    files[at : at + len(change)] = change
    changed = own | {"files": torch.frombuffer(files, dtype=torch.uint8)}
    try:
        shared = decode_shared(Blob.of(changed), SHAPE, None)
    except DataError:
        return
    assert torch.equal(shared.inputs, dataset.train.inputs)
