"""Parameters through codecs: which tensors are encoded, differences, sizes, and malformed messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import rig
import torch
from torch import Tensor

from sheaf.core import registry
from sheaf.core.lazy_blob import TensorBlob
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.runtime.coded_params import DecodedBlob, encodable, encode, layout

NETWORK = rig.network()
NAMES = encodable(NETWORK)
SHAPES = NETWORK.shapes(None)
every_codec = pytest.mark.parametrize("name", registry.describe("codecs"))


def codec_of(name: str) -> Any:
    return registry.load("codecs", name)()


def coded(name: str, params: dict[str, Tensor], base: dict[str, Tensor] | None) -> dict[str, Tensor]:
    return encode(params, codec_of(name), NAMES, 3, base)[0]


def decoded(name: str, tensors: dict[str, Tensor], base: dict[str, Tensor] | None) -> DecodedBlob:
    blob = None if base is None else Blob.of(base)
    return DecodedBlob(Blob.of(tensors), SHAPES, codec_of(name), NAMES, blob)


def test_matrices_are_encoded_and_nothing_else() -> None:
    assert {"1.weight", "3.weight"} == NAMES


@every_codec
def test_vectors_buffers_and_statistics_are_sent_exactly(name: str) -> None:
    params = rig.drawn(1) | {".fisher.1.weight": torch.randn(8, 16)}
    params["2.running_var"] = torch.linspace(1e-6, 1e6, 8)
    params["2.num_batches_tracked"] = torch.tensor(2**53 + 1)
    received = decoded(name, coded(name, params, rig.theta()), rig.theta()).open()
    assert received.keys() == params.keys()
    for key in params.keys() - NAMES:
        assert torch.equal(received[key], params[key]), key


@every_codec
def test_a_difference_is_nearer_than_a_whole_model(name: str) -> None:
    base = rig.theta()
    params = {key: value + 1e-3 if value.is_floating_point() else value for key, value in base.items()}
    received = decoded(name, coded(name, params, base), base).open()
    for key in NAMES:
        assert (received[key] - params[key]).abs().max() <= 1.001e-3
        assert name == "topk" or (received[key] - params[key]).abs().max() <= 1e-5


@every_codec
def test_the_size_follows_from_the_shapes(name: str) -> None:
    expected = layout(SHAPES, codec_of(name), NAMES)
    assert encoded_size(expected) == Blob.of(coded(name, rig.theta(), None)).size


@every_codec
def test_one_tensor_and_rows_of_it_are_decoded_alone(name: str) -> None:
    blob = decoded(name, coded(name, rig.drawn(1), rig.theta()), rig.theta())
    whole = blob.open()
    assert torch.equal(blob.rows("1.weight", 2, 5), whole["1.weight"][2:5])
    assert torch.equal(blob.rows("2.num_batches_tracked", 0, 1), whole["2.num_batches_tracked"])
    assert blob.sha256 == TensorBlob(whole).sha256


MALFORMED: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "bfloat16 is missing": lambda tensors: {k: v for k, v in tensors.items() if k != "bfloat16"},
    "more is no tensor of the message": lambda tensors: tensors | {"more": torch.zeros(1)},
    r"int8 is \(152,\) torch.uint8 instead of \(152,\) torch.int8": lambda tensors: (
        tensors | {"int8": tensors["int8"].view(torch.uint8)}
    ),
    r"float32 is \(51,\) torch.float32 instead of \(43,\)": lambda tensors: (
        tensors | {"float32": torch.zeros(51)}
    ),
    "3.weight has values that are not finite": lambda tensors: (
        tensors | {"bfloat16": torch.full((11,), torch.nan, dtype=torch.bfloat16)}
    ),
}


@pytest.mark.parametrize("why", MALFORMED)
def test_a_message_with_another_layout_is_refused(why: str) -> None:
    tensors = MALFORMED[why](coded("int8", rig.drawn(1), None))
    with pytest.raises(ValueError, match=why):
        decoded("int8", tensors, None).open(lambda name: name == "3.weight")
