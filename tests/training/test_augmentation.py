"""Augmentation: what may come out of an image, and from where the draws come."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sheaf.core.seeds import generator
from sheaf.training.augmentation import AUGMENTATIONS, crop, flip

every_augmentation = pytest.mark.parametrize("name", list(AUGMENTATIONS))


def images(n: int = 64, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(n, 3, height, width, generator=generator(5)) + 1  # no pixel is zero


def test_each_image_is_mirrored_or_not() -> None:
    x = images()
    out = flip(x, generator(1))
    mirrored = [bool(torch.equal(one, given.flip(2))) for one, given in zip(out, x, strict=True)]
    kept = [bool(torch.equal(one, given)) for one, given in zip(out, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 16 < sum(mirrored) < 48


def test_each_image_is_shifted_by_up_to_an_eighth() -> None:
    x = images(n=400)
    shifts = set()
    for one, given in zip(crop(x, generator(2)), x, strict=True):
        padded = F.pad(given, (3, 3, 2, 2))
        (shift,) = [
            (top, left)
            for top in range(5)
            for left in range(7)
            if torch.equal(one, padded[:, top : top + 16, left : left + 24])
        ]
        shifts.add(shift)
    assert {top for top, _ in shifts} == set(range(5))
    assert {left for _, left in shifts} == set(range(7))


def test_images_smaller_than_eight_stay_where_they_are() -> None:
    x = images(height=7, width=5)
    assert torch.equal(crop(x, generator(1)), x)


@every_augmentation
def test_draws_come_from_the_generator_alone(name: str) -> None:
    augment, x, before = AUGMENTATIONS[name], images(), torch.get_rng_state()
    given = x.clone()
    assert torch.equal(augment(x, generator(3)), augment(x, generator(3)))
    assert not torch.equal(augment(x, generator(3)), augment(x, generator(4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, given), "the batch is not written into"


@every_augmentation
@pytest.mark.parametrize("n", [0, 1])
def test_small_batches_keep_their_shape(name: str, n: int) -> None:
    x = images(n)
    out = AUGMENTATIONS[name](x, generator(3))
    assert out.shape == x.shape
    assert out.dtype == x.dtype
