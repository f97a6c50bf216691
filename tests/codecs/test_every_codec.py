"""Every codec in sheaf/codecs: sizes, bounds of the error, the mean over seeds, and hostile encodings."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sheaf.codecs.int8 import Int8
from sheaf.codecs.topk import TopK
from sheaf.core import registry
from sheaf.core.seeds import generator

NAMES = list(registry.describe("codecs"))
every_codec = pytest.mark.parametrize("name", NAMES)
few = hypothesis.settings(max_examples=40, deadline=None)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 40))
scales = st.sampled_from([1e-42, 1e-30, 1e-3, 1.0, 1e30])


def matrix(size: tuple[int, int], seed: int, scale: float = 1.0) -> Tensor:
    """Return normal values with a row of zeros, and rows of different scales."""
    values = torch.randn(size, generator=generator(seed)) * scale
    values *= torch.logspace(-3, 0, size[0])[:, None]
    values[0, ::2] = 0.0
    values[-1] *= seed % 2
    return values


def through(codec: Any, values: Tensor, seed: int = 0) -> Tensor:
    decoded: Tensor = codec.decode(codec.encode(values, generator(seed)), *values.shape)
    return decoded


@every_codec
@few
@given(size=sizes, seed=st.integers(0, 99), scale=scales)
def test_an_encoding_has_the_layout_and_an_error_within_the_bound(
    name: str, size: tuple[int, int], seed: int, scale: float
) -> None:
    codec, values = registry.load("codecs", name)(), matrix(size, seed, scale)
    parts = codec.encode(values, generator(seed))
    assert {part: (value.dtype, tuple(value.shape)) for part, value in parts.items()} == codec.layout(*size)
    decoded = codec.decode(parts, *size)
    assert (decoded.shape, decoded.dtype) == (values.shape, torch.float32)
    largest = values.abs().amax(1, keepdim=True)
    bounds = {
        "float32": 0.0 * largest,
        "bfloat16": values.abs() / 256 + 1e-40,
        "int8": largest * 1.01 / 127 + 1e-40,  # a bfloat16 scale is at most 2^-7 larger
        "topk": values.abs(),
    }
    assert (decoded - values).abs().le(bounds[name]).all()


@every_codec
def test_zeros_are_decoded_as_zeros_and_equal_seeds_give_equal_bits(name: str) -> None:
    codec = registry.load("codecs", name)()
    assert not through(codec, torch.zeros(3, 5)).any()
    values = matrix((4, 30), 1)
    assert torch.equal(through(codec, values, 7), through(codec, values, 7))


@every_codec
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_decoded_as_such(name: str, wrong: float) -> None:
    values = matrix((4, 30), 1)
    values[1, 3] = wrong
    assert not through(registry.load("codecs", name)(), values).isfinite().all()


def test_the_mean_of_int8_over_seeds_is_the_value() -> None:
    """Within five standard errors: rounding is unbiased."""
    values = matrix((8, 64), 1)
    draws = torch.stack([through(Int8(), values, seed) for seed in range(400)]).double()
    error = (draws.mean(0) - values).abs()
    assert error.le(5 * draws.std(0) / 400**0.5 + 1e-9).all()
    assert draws.std(0)[1].min() > 0  # it is random


def test_topk_with_feedback_sends_the_whole_over_time() -> None:
    """What was decoded and the last error sum to the values of all rounds; the error stays bounded."""
    codec, error, sent, total = TopK(fraction=0.1), torch.zeros(6, 50), torch.zeros(6, 50), torch.zeros(6, 50)
    norms = []
    for seed in range(60):
        values = matrix((6, 50), seed)
        decoded = through(codec, values + error)
        error = values + error - decoded
        sent, total = sent + decoded, total + values
        norms.append(error.norm().item())
    assert torch.allclose(sent + error, total, atol=1e-4)
    assert max(norms[30:]) < 1.5 * max(norms[:30])  # a lost error would not hurt this, a growing one would
    assert (sent - total).norm() < 0.5 * total.norm()


def test_topk_sends_the_largest_values() -> None:
    parts = TopK(fraction=0.25).encode(
        torch.tensor([[3.0, -9.0, 1.0, 0.5], [2.0, 0.1, -7.0, 4.0]]), generator(0)
    )
    assert (parts["i"].tolist(), parts["v"].tolist()) == ([1, 6], [-9.0, -7.0])
    assert TopK(fraction=0.001).layout(2, 3)["i"][1] == (1,)


@every_codec
@few
@given(data=st.data(), size=sizes)
def test_a_hostile_encoding_is_refused_or_decoded_to_the_size(
    name: str, data: st.DataObject, size: tuple[int, int]
) -> None:
    codec = registry.load("codecs", name)()
    parts = {}
    for part, (dtype, shape) in codec.layout(*size).items():
        count = torch.empty(shape, dtype=dtype).nbytes
        raw = data.draw(st.binary(min_size=count, max_size=count))
        parts[part] = torch.frombuffer(bytearray(raw), dtype=dtype).view(shape)
    with contextlib.suppress(ValueError):
        decoded = codec.decode(parts, *size)
        assert (tuple(decoded.shape), decoded.dtype) == (size, torch.float32)


@pytest.mark.parametrize("positions", [[0, 0, 1], [2, 1, 0], [-1, 0, 1], [0, 1, 6], [0, 1, 2**31 - 1]])
def test_positions_of_topk_must_ascend_inside_the_matrix(positions: list[int]) -> None:
    parts = {"i": torch.tensor(positions, dtype=torch.int32), "v": torch.ones(3)}
    with pytest.raises(ValueError, match="positions do not ascend from 0 to 5"):
        TopK(fraction=0.5).decode(parts, 2, 3)
