"""Between two models: exact at the ends, linear between them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.mixture import mixture

numbers = st.floats(-1e6, 1e6, width=32)


def params(value: float, steps: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2, 3), value), "n": torch.tensor(steps)}


@given(numbers, numbers, st.floats(0, 1))
def test_a_mixture_is_linear(own: float, received: float, a: float) -> None:
    mixed = mixture(params(own, 1), params(received, 2), a)
    expected = (1 - a) * own + a * received
    torch.testing.assert_close(mixed["w"], torch.full((2, 3), expected), rtol=1e-5, atol=1.0)
    assert mixed["n"].item() == (1 if a == 0 else 2)


@given(numbers, numbers)
def test_the_ends_are_the_models_themselves(own: float, received: float) -> None:
    for a, end in ((0.0, params(own, 1)), (1.0, params(received, 2))):
        mixed = mixture(params(own, 1), params(received, 2), a)
        assert all(torch.equal(mixed[name], value) for name, value in end.items())
