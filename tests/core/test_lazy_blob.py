"""Blobs without bytes have the sizes, hashes and tensors of encoded ones."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sheaf.core.lazy_blob import LazyBlob, TensorBlob, spill
from sheaf.core.tensor_file import Blob, encode, encoded_size

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    st.builds(
        lambda shape, dtype: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from(TYPES),
    ),
    max_size=5,
)


@settings(max_examples=100)
@given(TENSORS)
def test_sizes_and_hashes_are_those_of_the_encoding(tensors: dict[str, Tensor]) -> None:
    encoded, lazy = Blob.of(tensors), TensorBlob(tensors)
    assert lazy.size == encoded_size(tensors) == len(encode(tensors))
    assert (lazy.source, lazy.sha256, lazy.key) == (encoded.source, encoded.sha256, encoded.key)
    found = LazyBlob(lambda: encoded)
    assert (found.size, found.sha256, found.key) == (encoded.size, encoded.sha256, encoded.key)
    for blob in (lazy, found):
        opened = blob.open(lambda name: name != "w")
        assert opened.keys() == tensors.keys() - {"w"}
        assert all(torch.equal(value, tensors[name]) for name, value in opened.items())


def test_the_size_of_a_type_that_the_encoder_leaves_to_safetensors() -> None:
    tensors = {"w": torch.ones(3).to(torch.float8_e4m3fn), "b": torch.ones(2)}
    assert encoded_size(tensors) == len(encode(tensors))


def test_only_strided_tensors_are_opened_without_a_copy() -> None:
    transposed, plain = torch.arange(6.0).view(3, 2).mT, torch.ones(2)
    blob = TensorBlob({"w": transposed, "b": plain})
    assert blob.open_strided()["w"] is transposed
    opened = blob.open()
    assert opened["w"].is_contiguous()
    assert torch.equal(opened["w"], transposed)
    assert opened["b"] is plain


def test_rows_and_files(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(6.0).view(3, 2), "n": torch.tensor(5)}
    for number, blob in enumerate((TensorBlob(tensors), LazyBlob(lambda: Blob.of(tensors)))):
        assert blob.rows("w", 1, 2).tolist() == [[2, 3]]
        assert blob.rows("n", 0, 1).item() == 5
        written = blob.write(tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == encode(tensors)
        assert written.open()["w"].tolist() == tensors["w"].tolist()


def test_a_sub_model_is_taken_at_every_access() -> None:
    taken = []

    def take() -> Blob:
        taken.append(1)
        return TensorBlob({"w": torch.ones(2)})

    blob = LazyBlob(take, 72, "key")
    assert (blob.size, blob.key, taken) == (72, "key", [])
    blob.open()
    blob.open()
    assert len(taken) == 2


def test_spilled_tensors_lie_in_a_file_without_a_name(tmp_path: Path) -> None:
    states = {name: {"w": torch.full((1000,), float(k)), "n": torch.tensor(k)} for k, name in enumerate("ab")}
    spilled = spill(tmp_path / "x.spilled", states)
    assert list(tmp_path.iterdir()) == []
    for name, state in states.items():
        assert all(torch.equal(spilled[name][key], value) for key, value in state.items())
    mapped = f"{tmp_path}/x.spilled"
    assert mapped in Path("/proc/self/maps").read_text()
    del spilled
    gc.collect()
    assert mapped not in Path("/proc/self/maps").read_text(), "its memory is free"
