"""Selection of samples to send: exact limits, repeatable, by the chosen strategy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import one_line

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.recipe import Share
from sheaf.core.wire_format import encode_samples
from sheaf.data.sample_selection import choose_samples

limits = st.builds(
    Share,
    fraction=st.floats(0.01, 1),
    count=st.none() | st.integers(1, 300),
    bytes=st.none() | st.integers(700, 60_000),
    choose=st.sampled_from(["random", "balanced"]),
)


def samples(labels: list[int]) -> Samples:
    inputs = torch.arange(len(labels) * 64, dtype=torch.int64).remainder(256).to(torch.uint8)
    return Samples.of(inputs.view(-1, 1, 8, 8), torch.tensor(labels))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), limits, st.integers(0, 99))
def test_the_selection_is_as_large_as_the_limits_allow(labels: list[int], share: Share, seed: int) -> None:
    data = samples(labels)
    chosen = choose_samples(data, share, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist())), "each at most once"
    assert torch.equal(chosen, choose_samples(data, share, seed))
    by_count = min(round(share.fraction * len(data)), share.count or len(data))
    assert len(chosen) <= by_count
    if share.bytes is not None:
        assert encode_samples(data.select(chosen)).size <= share.bytes
    if len(chosen) < by_count:
        assert share.bytes is not None
        more = torch.arange(len(chosen) + 1)
        assert encode_samples(data.select(more)).size > share.bytes - 512, "one more might not fit"


@given(st.lists(st.integers(0, 5), min_size=6, max_size=200), st.integers(1, 200), st.integers(0, 99))
def test_balanced_takes_equal_numbers_of_each_class(labels: list[int], count: int, seed: int) -> None:
    data = samples(labels)
    chosen = choose_samples(data, Share(count=count, choose="balanced"), seed)
    available, taken = data.counts(6), data.select(chosen).counts(6)
    assert int(taken.sum()) == min(count, len(data))
    for k in range(6):
        assert taken[k] == available[k] or taken[k] >= taken.max() - 1, "a class that has more is not short"


def test_uncertain_takes_the_samples_of_highest_entropy() -> None:
    data = samples([0, 1, 2, 0])
    logits = torch.tensor([[9.0, 0, 0], [1.0, 1, 1], [0, 3.0, 0], [0, 1.0, 0]])
    share = Share(count=2, choose="uncertain")
    assert choose_samples(data, share, 0, logits).tolist() == [1, 3]


def test_a_limit_below_one_sample_is_an_error() -> None:
    with pytest.raises(DataError, match=r"share\.bytes = 80 is less than one") as error:
        choose_samples(samples([0, 1]), Share(bytes=80), 0)
    one_line(error)
