"""The hold-out split: disjoint, complete, sorted, repeatable."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import one_line

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.data.held_out import hold_out


def samples(count: int) -> Samples:
    """Every second one of twice as many examples in memory."""
    inputs = torch.arange(2 * count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Samples.of(inputs, torch.zeros(2 * count, dtype=torch.int64)).select(torch.arange(0, 2 * count, 2))


@given(st.integers(1, 100), st.floats(0, 0.99), st.integers(0, 2**63 - 1))
def test_every_sample_is_in_one_part(count: int, fraction: float, seed: int) -> None:
    data = samples(count)
    if round(fraction * count) == count:
        return
    training, held_out = hold_out(data, fraction, seed)
    assert len(held_out) == round(fraction * count)
    assert torch.equal(torch.cat([training.positions, held_out.positions]).sort().values, data.positions)
    for part in (training, held_out):
        assert torch.equal(part.positions, part.positions.sort().values)
        assert part.inputs is data.inputs
    again = hold_out(data, fraction, seed)[1]
    assert torch.equal(held_out.positions, again.positions)


def test_the_draw_of_a_seed_never_changes() -> None:
    """Runs that were recorded with earlier versions can be repeated."""
    assert hold_out(samples(10), 0.3, 7)[1].positions.tolist() == [0, 6, 10]


def test_another_seed_draws_another_part() -> None:
    one, other = (hold_out(samples(100), 0.5, seed)[1].positions for seed in (1, 2))
    assert not torch.equal(one, other)


def test_the_order_of_the_samples_does_not_matter_to_the_order_of_the_parts() -> None:
    backwards = samples(10).select(torch.arange(9, -1, -1))
    training, _ = hold_out(backwards, 0.0, 7)
    assert torch.equal(training.positions, samples(10).positions)


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.1), (2, 0.9)])
def test_an_empty_training_part_is_an_error(count: int, fraction: float) -> None:
    with pytest.raises(DataError, match=f"of {count} samples and leaves none to train on") as error:
        hold_out(samples(count), fraction, 7)
    one_line(error)
