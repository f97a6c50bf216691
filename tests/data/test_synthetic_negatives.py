"""Synthetic negatives: mosaics of quarters of a site's own examples, from other corners."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.data.synthetic_negatives import make_outliers


def samples(height: int = 8, width: int = 8, dtype: torch.dtype = torch.uint8) -> Samples:
    """Each value encodes its example and its corner; the odd examples belong to another site."""
    examples = torch.arange(20).view(20, 1, 1, 1) * 10
    rows = (torch.arange(height) >= height / 2).view(height, 1) * 2
    corner = rows + (torch.arange(width) >= width / 2)
    inputs = (examples + corner).expand(20, 3, height, width).to(dtype)
    return Samples.of(inputs, torch.zeros(20, dtype=torch.int64)).select(torch.arange(0, 20, 2))


def quarters(mosaics: Tensor) -> list[tuple[int, Tensor]]:
    """Return (corner, its quarter of all mosaics), for even sizes."""
    down, across = mosaics.shape[2] // 2, mosaics.shape[3] // 2
    return [
        (2 * r + c, mosaics[:, :, r * down : (r + 1) * down, c * across : (c + 1) * across])
        for r in (0, 1)
        for c in (0, 1)
    ]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 10), (9, 8), (7, 5), (1, 6), (1, 1)])
def test_outliers_have_the_shape_and_the_values_of_the_samples(
    dtype: torch.dtype, height: int, width: int
) -> None:
    own = samples(height, width, dtype)
    made = make_outliers(own, 13, 5)
    assert (made.shape, made.dtype) == ((13, 3, height, width), dtype)
    values = set(own.inputs[own.positions].unique().tolist())
    assert set(made.unique().tolist()) <= values, "only the site's own values"


def test_each_quarter_comes_from_another_corner_of_one_example() -> None:
    made = make_outliers(samples(), 50, 5)
    sources = []
    for corner, quarter in quarters(made):
        flat = quarter.flatten(1)
        assert torch.equal(flat, flat[:, :1].expand_as(flat)), "of one corner of one example"
        assert (flat[:, 0] % 10 != corner).all()
        sources.append(flat[:, 0] // 10)
    mixed = (torch.stack(sources) != sources[0]).any(0)
    assert mixed.float().mean() > 0.9, "the quarters of one are of different examples"


def test_the_samples_are_not_modified() -> None:
    own = samples(dtype=torch.float32)
    before = own.inputs.clone()
    make_outliers(own, 13, 5).add_(1)
    assert torch.equal(own.inputs, before)


def test_outliers_depend_on_the_seed_only() -> None:
    before = torch.manual_seed(1).get_state()
    one = make_outliers(samples(), 13, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, make_outliers(samples(), 13, 5))
    assert not torch.equal(one, make_outliers(samples(), 13, 6))


def test_a_count_of_zero() -> None:
    assert make_outliers(samples(), 0, 5).shape == (0, 3, 8, 8)
