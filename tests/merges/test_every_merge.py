"""Whatever lies in sheaf/merges: means of what the sites hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sheaf import plugins
from sheaf.blob import Blob
from sheaf.merges.mean import Mean
from sheaf.merges.weighted_mean import WeightedMean
from sheaf.types import Cost, Update

NAMES = list(plugins.describe("merges"))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
every_merge = pytest.mark.parametrize("name", NAMES)


def params(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {
        "conv": torch.randn(2, 3, 2, 2, generator=draws).to(dtype),
        "bias": torch.randn(3, generator=draws).to(dtype),
        "scale": torch.randn((), generator=draws).to(dtype),
        "wide": torch.randn(4, generator=draws, dtype=torch.float64),
        "steps": torch.randint(100, (), generator=draws),
    }


def update(site: int, sent: dict[str, Tensor], examples: int = 10) -> Update:
    return Update(f"edge-{site}", "train", Blob.of(sent), (examples, 1), {}, Cost())


@every_merge
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_the_mean_of_identical_models_is_that_model(name: str, seed: int, sizes: list[int]) -> None:
    for dtype in DTYPES:
        same = params(seed, dtype)
        merged = plugins.load("merges", name)()(same, [update(k, same, n) for k, n in enumerate(sizes)])
        assert list(merged) == list(same)
        for key, value in same.items():
            assert merged[key].dtype == value.dtype
            assert merged[key].shape == value.shape
            if value.dtype == torch.float64:
                torch.testing.assert_close(merged[key], value, rtol=1e-14, atol=0)
            else:
                assert torch.equal(merged[key], value)


@every_merge
@given(sizes=st.lists(st.integers(1, 1000), min_size=2, max_size=6), random=st.randoms(use_true_random=False))
def test_the_order_of_updates_hardly_matters(name: str, sizes: list[int], random) -> None:
    merge, theta = plugins.load("merges", name)(), params(0)
    updates = [update(k, params(k), n) for k, n in enumerate(sizes)]
    shuffled = random.sample(updates, len(updates))
    merged, otherwise = merge(theta, updates), merge(theta, shuffled)
    again = merge(theta, sorted(shuffled, key=lambda one: one.site))
    for key, value in theta.items():
        assert torch.equal(merged[key], again[key]), "the same order gives the same bits"
        if value.is_floating_point():
            torch.testing.assert_close(merged[key], otherwise[key], rtol=1e-6, atol=1e-6)


@every_merge
def test_a_merge_lies_between_what_it_merges(name: str) -> None:
    updates = [update(k, params(k), n) for k, n in enumerate((1, 50, 7))]
    merged = plugins.load("merges", name)()(params(9), updates)
    for key, value in merged.items():
        if value.is_floating_point():
            sent = torch.stack([one.params[key] for one in updates])
            assert (sent.amin(0) <= value).all()
            assert (value <= sent.amax(0)).all()


@every_merge
def test_integer_buffers_are_taken(name: str) -> None:
    sent = [params(k) | {"steps": torch.tensor(steps)} for k, steps in enumerate((3, 8, 8))]
    merged = plugins.load("merges", name)()(params(9), [update(k, one) for k, one in enumerate(sent)])
    assert merged["steps"].dtype == torch.int64
    assert merged["steps"].item() == 3


@every_merge
def test_every_merge_describes_itself(name: str) -> None:
    assert plugins.describe("merges")[name].endswith(".")


def test_the_mean_knows_no_weights() -> None:
    one, other = {"w": torch.tensor([1.0])}, {"w": torch.tensor([5.0])}
    updates = [update(1, one, examples=0), update(2, other, examples=2)]  # 1 and 3 examples
    assert Mean()(one, updates)["w"].item() == 3
    assert WeightedMean()(one, updates)["w"].item() == 4
