"""Between two models: exact at the ends, linear between them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.mixture import choose_mixture, mixture

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


def of(losses: dict[float, list[float]]) -> dict[float, torch.Tensor]:
    return {a: torch.tensor(each) for a, each in losses.items()}


@given(
    st.dictionaries(st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 9)),
    st.integers(0, 9),
    st.sampled_from(["remembered", "held"]),
    st.integers(0, 2**32),
)
def test_no_choice_gets_fewer_right(right: dict[float, int], kept: int, prefer: str, seed: int) -> None:
    right[0.0] = kept
    draws = torch.Generator().manual_seed(seed)
    losses = {a: torch.rand(9, generator=draws) for a in right}
    labels = torch.randint(4, (9,), generator=draws)
    assert right[choose_mixture(right, losses, labels, prefer)] >= kept  # type: ignore[arg-type]


def test_what_the_examples_cannot_tell_apart_is_decided_by_preference() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    losses = of({0.0: [1, 1, 1, 1], 0.5: [0.4, 0.6, 0.5, 0.5], 1.0: [0.5, 0.5, 0.6, 0.4]})
    right = {0.0: 2, 0.5: 3, 1.0: 3}
    assert choose_mixture(right, losses, labels, "remembered") == 0.5
    assert choose_mixture(right, losses, labels, "held") == 1.0
    assert choose_mixture(right | {1.0: 1}, losses, labels, "held") == 0.5, "fewer right is never safe"


def test_what_they_can_tell_apart_is_not() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    losses = of({0.0: [0.1, 0.1, 0.1, 0.1], 1.0: [0.3, 0.31, 0.3, 0.29]})
    assert choose_mixture({0.0: 3, 1.0: 4}, losses, labels, "held") == 0.0


def test_a_rare_class_counts_as_much_as_any() -> None:
    labels = torch.tensor([0] * 98 + [3, 3])
    losses = of({0.0: [0.2] * 100, 1.0: [0.1] * 98 + [3.0, 3.1]})
    right = dict.fromkeys(losses, 98)
    assert choose_mixture(right, losses, labels, "remembered") == 0.0


def test_one_odd_example_decides_nothing() -> None:
    labels = torch.zeros(100, dtype=torch.long)
    losses = of({0.0: [0.2] * 100, 1.0: [0.21, 0.19] * 49 + [0.2, 0.0]})
    right = dict.fromkeys(losses, 100)
    assert choose_mixture(right, losses, labels, "remembered") == 0.0
    assert choose_mixture(right, losses, labels, "held") == 1.0
