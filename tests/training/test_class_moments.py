"""Moments of features by class: those of all sites added are those of the pooled data."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Noise
from sheaf.core.seeds import generator
from sheaf.training import class_moments
from sheaf.training.class_moments import ClassMoments
from sheaf.training.preparation import Preparation

K, WIDTH = 3, 5
AS_IT_IS = Preparation((0.0,), (1.0,), torch.device("cpu"))
NOISE = Noise(clip=2.0, multiplier=4.0, delta=1e-5)


def network() -> nn.Sequential:
    """Return a model whose features are its inputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, K))


def samples(features: Tensor, labels: Tensor) -> Samples:
    return Samples.of(features.float().reshape(-1, 1, 1, WIDTH), labels)


def random_samples(count: int = 400) -> Samples:
    draws = generator(count)
    labels = torch.arange(count) % K
    return samples(torch.randn(count, WIDTH, generator=draws) + labels[:, None], labels)


def moments(of: Samples, noise: Noise | None = None, key: bytes = b"") -> dict[str, Tensor]:
    model = network()
    return class_moments.compute(model, model[1], of, AS_IT_IS, noise, key)


dyadic = st.integers(-(2**20), 2**20).map(lambda number: number / 2**10)
"""Numbers whose products and sums are exact in float64, but not in float32."""


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, K - 1), st.lists(dyadic, min_size=WIDTH, max_size=WIDTH)), min_size=1),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_the_sum_over_sites_equals_the_pooled_moments(
    examples: list[tuple[int, list[float]]], cuts: list[int]
) -> None:
    labels = torch.tensor([label for label, _ in examples])
    pooled = samples(torch.tensor([features for _, features in examples]), labels)
    ends = [0, *sorted(min(cut, len(pooled)) for cut in cuts), len(pooled)]
    parts = [moments(pooled.select(torch.arange(start, stop))) for start, stop in pairwise(ends)]
    for name, value in moments(pooled).items():
        assert value.dtype == torch.float64
        assert torch.equal(sum(part[name] for part in parts), value), name


def test_moments_are_those_of_the_features() -> None:
    data = random_samples()
    x, labels = data.inputs.reshape(-1, WIDTH).double(), data.labels
    found = ClassMoments.of(moments(data))
    torch.testing.assert_close(found.moment, x.T @ x)
    assert torch.equal(found.counts, labels.bincount().double())
    means = torch.stack([x[labels == label].mean(0) for label in range(K)])
    torch.testing.assert_close(found.means, means)
    centred = x - means[labels]
    torch.testing.assert_close(found.within, centred.T @ centred / len(x))
    expected = class_moments.blank(network()[1], None)
    assert {name: value.shape for name, value in moments(data).items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_noise_is_repeatable_and_depends_on_key_and_data() -> None:
    data = random_samples()
    first = moments(data, NOISE, b"secret")["sums"]
    assert torch.equal(moments(data, NOISE, b"secret")["sums"], first)
    exact = moments(data.select(torch.arange(399)), NOISE, b"secret")["sums"]
    assert (exact - first).norm() > NOISE.multiplier, "other data have other noise"
    assert not torch.equal(moments(data, NOISE, b"other")["sums"], first)


def test_noise_has_the_deviation_of_the_gaussian_mechanism() -> None:
    """One example changes counts, sums / C and second moment / C^2 by at most 1 each, in Euclidean norm."""
    data = random_samples(30)
    exact = ClassMoments.of(moments(data, Noise(clip=2.0, multiplier=1e-12, delta=1e-5)))
    drawn = [ClassMoments.of(moments(data, NOISE, bytes([key]))) for key in range(200)]
    std = NOISE.multiplier * math.sqrt(4)
    for name, scale in (("counts", 1.0), ("sums", NOISE.clip)):
        noise = torch.stack([getattr(each, name) - getattr(exact, name) for each in drawn])
        assert noise.std().item() == pytest.approx(std * scale, rel=0.1)
    noise = torch.stack([each.moment - exact.moment for each in drawn])
    diagonal = torch.eye(WIDTH, dtype=torch.bool)
    assert noise[:, diagonal].std().item() == pytest.approx(std * NOISE.clip**2, rel=0.1)
    assert noise[:, ~diagonal].std().item() == pytest.approx(std * NOISE.clip**2 / math.sqrt(2), rel=0.1)


def test_one_example_changes_clipped_moments_by_at_most_the_sensitivity() -> None:
    many = random_samples(60)
    many.inputs[59] *= 1000
    still = Noise(clip=2.0, multiplier=1e-12, delta=1e-5)
    one = ClassMoments.of(moments(many, still))
    other = ClassMoments.of(moments(many.select(torch.arange(59)), still))
    change = [(one.counts - other.counts).norm(), (one.sums - other.sums).norm() / 2]
    change.append((one.moment - other.moment).norm() / 4)
    assert [value.item() for value in change] == pytest.approx([1, 1, 1], abs=1e-6)


def test_moments_with_much_noise_are_repaired() -> None:
    loud = ClassMoments.of(moments(random_samples(30), Noise(clip=2.0, multiplier=99.0, delta=1e-5)))
    repaired = loud.repaired()
    assert repaired.counts[repaired.present].min() >= 1
    assert torch.linalg.eigvalsh(repaired.within).min() > 0


def test_the_typical_norm_tells_by_how_much_features_exceed_the_clip() -> None:
    data = random_samples()
    for factor in (1e-3, 1.0, 50.0):
        scaled = samples(data.inputs.reshape(-1, WIDTH) * factor, data.labels)
        typical = scaled.inputs.reshape(-1, WIDTH).norm(dim=1).log().mean().exp().item()
        found = ClassMoments.of(moments(scaled, Noise(clip=2.0, multiplier=1.0, delta=1e-5)))
        assert found.excess(2.0) == pytest.approx(max(1.0, typical / 2.0), rel=0.3)
    assert ClassMoments.of(moments(data)).excess(2.0) == 1.0
