"""Stored parameters act like a dict, and are read only when something needs them."""

from __future__ import annotations

import torch

from sheaf.core.lazy_blob import LazyBlob
from sheaf.core.stored_params import StoredParams, blob_of
from sheaf.core.tensor_file import Blob


def test_it_is_read_at_the_first_access_and_then_like_a_dict() -> None:
    tensors, reads = {"a": torch.ones(2), "b": torch.zeros(1)}, []

    def find() -> Blob:
        reads.append(1)
        return Blob.of(tensors)

    blob = LazyBlob(find, 10, "key")
    params = StoredParams(blob)
    assert blob_of(params) is blob
    assert reads == []
    assert sorted(params) == sorted(params.keys()) == ["a", "b"]
    assert len(params) == 2
    assert len(reads) == 1
    other = {"b": torch.ones(1)}
    assert (params | other)["b"].item() == (other | params.copy())["b"].item() + 1 == 1
    assert (other | params)["b"].item() == 0  # type: ignore[operator]
    assert {**params}.keys() == dict(params).keys() == tensors.keys()
    assert "tensor" in repr(params)
    assert len(reads) == 1
    assert blob_of(tensors).key == blob_of({**params}).key
