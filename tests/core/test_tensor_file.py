"""Tensor files: decoding inverts encoding, equal tensors give equal bytes, damage changes the hash."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from sheaf.core.atomic_io import write_durably
from sheaf.core.tensor_file import Blob, encode, write_together

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    seed = draw(st.integers(0, 2**32))
    values = (
        torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        .mul(200)
        .to(draw(st.sampled_from(DTYPES)))
    )
    order = draw(st.permutations(range(values.ndim)))
    return values.permute(order)  # strides of all kinds


named = st.dictionaries(st.text("abc.01_", min_size=1, max_size=6), tensors(), max_size=4)


@given(named)
def test_tensors_are_encoded_as_safetensors_does(given_tensors: dict[str, Tensor]) -> None:
    made = save({name: value.contiguous() for name, value in given_tensors.items()})
    assert Blob.of(given_tensors).source == made


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint64, torch.float8_e4m3fn]
)
def test_rare_types_are_encoded_as_safetensors_does(dtype: torch.dtype) -> None:
    tensors = {'a "é"': torch.arange(6).reshape(2, 3).to(dtype), "b": torch.ones(3), "c": torch.tensor(1)}
    assert Blob.of(tensors).source == save(tensors)


@given(named)
def test_decoding_inverts_encoding(given_tensors: dict[str, Tensor]) -> None:
    opened = Blob.of(given_tensors).open()
    assert opened.keys() == given_tensors.keys()
    for name, value in given_tensors.items():
        assert opened[name].dtype == value.dtype
        assert opened[name].shape == value.shape
        assert torch.equal(opened[name], value)


@given(named, st.randoms(use_true_random=False))
def test_equal_tensors_give_equal_bytes(given_tensors: dict[str, Tensor], random) -> None:
    names = list(given_tensors)
    random.shuffle(names)
    again = {name: given_tensors[name].clone(memory_format=torch.contiguous_format) for name in names}
    first, second = Blob.of(given_tensors), Blob.of(again)
    assert first.source == second.source
    assert isinstance(first.source, bytes)
    assert first.sha256 == second.sha256 == hashlib.sha256(first.source).hexdigest()
    assert first.size == len(first.source)


def test_nan_infinity_and_negative_zero_keep_their_bits() -> None:
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    opened = Blob.of({"x": odd}).open()["x"]
    assert torch.equal(opened.view(torch.int32), odd.view(torch.int32))


def test_another_value_name_type_or_shape_gives_another_hash() -> None:
    one = torch.zeros(2, 3)
    blobs = [
        Blob.of({"x": one}),
        Blob.of({"y": one}),
        Blob.of({"x": one.to(torch.float64)}),
        Blob.of({"x": one.view(3, 2)}),
        Blob.of({"x": one + 1}),
        Blob.of({"x": -one}),  # -0.0 equals 0.0, and is another bit
    ]
    assert len({blob.sha256 for blob in blobs}) == len(blobs)


def test_opening_twice_gives_independent_tensors() -> None:
    blob = Blob.of({"x": torch.zeros(3)})
    blob.open()["x"].add_(1)
    assert blob.open()["x"].tolist() == [0, 0, 0]


def test_a_written_blob_is_the_same_blob(tmp_path: Path) -> None:
    blob = Blob.of({"x": torch.arange(6.0).view(2, 3)})
    written = blob.write(tmp_path / "a")
    assert written == Blob.at(tmp_path / "a")
    assert (written.sha256, written.size) == (blob.sha256, blob.size)
    assert torch.equal(written.open()["x"], blob.open()["x"])
    copied = written.write(tmp_path / "b")
    assert copied.source == tmp_path / "b"
    assert (tmp_path / "b").read_bytes() == blob.source


def test_a_second_file_of_the_same_bytes_is_a_hard_link(tmp_path: Path) -> None:
    blob = Blob.of({"w": torch.arange(3.0)}).write(tmp_path / "one")
    other = blob.write(tmp_path / "two")
    assert (tmp_path / "one").samefile(tmp_path / "two")
    assert other.write(tmp_path / "one").open()["w"].tolist() == [0, 1, 2]
    (tmp_path / "one").unlink()
    assert other.open()["w"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two"]


def test_the_bytes_are_written_if_no_link_can_be_made(tmp_path: Path) -> None:
    blob = replace(Blob.of({"w": torch.arange(3.0)}), lies_at=tmp_path / "gone")
    assert blob.write(tmp_path / "two").open()["w"].tolist() == [0, 1, 2]


def test_the_blocks_of_an_obsolete_file_are_reused_unless_it_has_another_link(tmp_path: Path) -> None:
    for place, linked in enumerate((False, True)):
        old, other = tmp_path / f"old-{place}", tmp_path / f"other-{place}"
        write_durably(old, b"old and long" * 99)
        room = old.stat().st_ino
        if linked:
            other.hardlink_to(old)
        new = Blob.of({"w": torch.ones(1)})
        new.write(tmp_path / f"new-{place}", over=old)
        assert (tmp_path / f"new-{place}").read_bytes() == new.source
        assert ((tmp_path / f"new-{place}").stat().st_ino == room) is not linked
        if linked:
            assert old.read_bytes() == other.read_bytes() == b"old and long" * 99


@given(st.dictionaries(st.sampled_from(("a", "a.b", "c", "__metadata")), named, min_size=1))
def test_each_blob_in_a_file_of_several_equals_a_blob_of_its_own(
    states: dict[str, dict[str, Tensor]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "several"
        written = write_together(path, states)
        assert load_file(path).keys() == states.keys()
        for name, state in states.items():
            alone, found = Blob.of(state), Blob.at(path, name)
            assert (found.sha256, found.size) == (alone.sha256, alone.size)
            assert found == written[name]
            assert {key: value.tolist() for key, value in found.open().items()} == {
                key: value.tolist() for key, value in alone.open().items()
            }
            (Path(folder) / "apart").unlink(missing_ok=True)
            assert replace(found, lies_at=Path(folder) / "gone").write(Path(folder) / "apart").offset is None
            assert (Path(folder) / "apart").read_bytes() == alone.source


@settings(max_examples=200)
@given(st.data())
def test_damage_in_a_file_of_several_changes_the_hash(data: st.DataObject) -> None:
    states = {name: {"w": torch.arange(4.0)} for name in ("a", "b")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "several"
        whole = write_together(path, states)["a"]
        digest = whole.sha256
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, whole.offset + whole.size - 1))  # type: ignore[operator]
        content[at] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.integers(at + 1, len(content)))
        path.write_bytes(content[:cut])
        found = Blob.at(path, "a")
        assert found.sha256 != digest or found.open()["w"].tolist() == [0, 1, 2, 3]


def test_metadata_is_sorted(tmp_path: Path) -> None:
    named = {"w": torch.arange(3.0), "a.b": torch.ones(2, 2, dtype=torch.bfloat16)}
    told = {"zoë": "1", "b": '{"c": 2}', "a": ""}
    content = encode(named, told)
    assert content == encode(dict(reversed(named.items())), dict(reversed(told.items())))
    (tmp_path / "x").write_bytes(content)
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == told
        assert all(torch.equal(file.get_tensor(name), value) for name, value in named.items())
