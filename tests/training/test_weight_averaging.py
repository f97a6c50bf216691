"""The mean of the last steps, for one training and for several of unequal length."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.core.seeds import generator
from sheaf.training.weight_averaging import WeightAverage


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4).map(lambda steps: sorted(steps, reverse=True)),
    st.floats(0.01, 1),
    st.integers(0, 9),
)
def test_each_site_has_the_mean_of_its_own_last_steps(steps: list[int], share: float, seed: int) -> None:
    draws = generator(seed)
    seen = torch.randn(steps[0], len(steps), 2, 3, dtype=torch.float64, generator=draws)
    tail = WeightAverage({"theta": seen[0]}, steps, share)
    for step in range(steps[0]):
        active = sum(own > step for own in steps)
        tail.add({"theta": seen[step, :active]}, step + 1)
    for site, own in enumerate(steps):
        last = max(1, round(share * own))
        expected = seen[own - last : own, site].mean(0)
        torch.testing.assert_close(tail.mean["theta"][site], expected, rtol=1e-9, atol=1e-12)


def test_numbers_without_dimensions() -> None:
    tail = WeightAverage({"scale": torch.tensor([1.0])}, [2], 1.0)
    for step, value in ((1, 3.0), (2, 5.0)):
        tail.add({"scale": torch.tensor([value])}, step)
    assert tail.mean["scale"].tolist() == [4.0]


def test_infinite_constants_have_no_mean() -> None:
    values = {"mask": torch.tensor([[0.0, -float("inf")]]), "w": torch.tensor([[1.0]])}
    average = WeightAverage(values, [2], 1.0)
    for step in (1, 2):
        average.add(values | {"w": torch.tensor([[float(step)]])}, step)
    assert average.mean.keys() == {"w"}
    assert average.mean["w"].item() == 1.5
