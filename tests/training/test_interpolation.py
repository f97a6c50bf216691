"""Between two models: exact at the ends, linear between them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sheaf.training.interpolation import choose_mixture, mixture

numbers = st.floats(-1e6, 1e6, width=32)


def params(value: float, steps: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2, 3), value), "n": torch.tensor(steps)}


@given(numbers, numbers, st.floats(0, 1))
def test_a_mixture_is_linear(own: float, received: float, a: float) -> None:
    """To four roundings of float32 (a, difference, product, sum), each 2**-24 of |own| + |received| at most.

    Where the product underflows, it is off by less than the smallest number instead.
    """
    mixed = mixture(params(own, 1), params(received, 2), a)
    expected = (1 - a) * own + a * received
    bound = 4 * 2**-24 * (abs(own) + abs(received)) + 2**-149
    assert (mixed["w"].double() - expected).abs().max() <= bound
    assert mixed["n"].item() == (1 if a == 0 else 2)


@given(numbers, numbers)
def test_the_ends_are_the_models_themselves(own: float, received: float) -> None:
    for a, end in ((0.0, params(own, 1)), (1.0, params(received, 2))):
        mixed = mixture(params(own, 1), params(received, 2), a)
        assert all(torch.equal(mixed[name], value) for name, value in end.items())


def of(losses: dict[float, list[float]]) -> dict[float, torch.Tensor]:
    return {a: torch.tensor(each, dtype=torch.float64) for a, each in losses.items()}


@given(
    st.dictionaries(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1), min_size=1),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_no_choice_is_less_accurate_than_the_baseline(
    accuracies: dict[float, float], baseline: float, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    losses = {a: torch.rand(9, generator=draws, dtype=torch.float64) for a in accuracies}
    labels = torch.randint(4, (9,), generator=draws)
    chosen = choose_mixture(accuracies, losses, labels, baseline)
    good = {a for a in accuracies if accuracies[a] >= baseline - 1e-9 and a > min(accuracies)}
    assert chosen in good if good else chosen == min(accuracies)


def test_what_the_examples_cannot_tell_apart_is_half_way() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    losses = of({0.2: [0.4, 0.5, 0.5, 0.5], 0.4: [0.5, 0.5, 0.4, 0.5], 0.8: [0.5, 0.5, 0.5, 0.4]})
    losses[0.0] = torch.ones(4, dtype=torch.float64)
    accuracies = dict.fromkeys(losses, 0.75)
    assert choose_mixture(accuracies, losses, labels, 0.75) == 0.4
    assert choose_mixture(accuracies | {0.4: 0.5}, losses, labels, 0.75) == 0.8, "the larger of two as near"


def test_what_they_can_tell_apart_is_not() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    losses = of({0.0: [1.0] * 4, 0.5: [0.2, 0.21, 0.2, 0.19], 1.0: [0.1, 0.1, 0.1, 0.1]})
    assert choose_mixture({0.0: 0.75, 0.5: 1.0, 1.0: 1.0}, losses, labels, 0.75) == 1.0


def test_a_rare_class_counts_as_much_as_any() -> None:
    labels = torch.tensor([0] * 98 + [3, 3])
    losses = of({0.0: [1.0] * 100, 0.2: [0.2] * 100, 1.0: [0.1] * 98 + [1.8, 1.9]})
    assert choose_mixture(dict.fromkeys(losses, 0.9), losses, labels, 0.9) == 0.2


def test_one_odd_example_decides_nothing() -> None:
    labels = torch.zeros(100, dtype=torch.long)
    losses = of({0.0: [1.0] * 100, 0.2: [0.21, 0.19] * 49 + [0.2, 0.0], 0.8: [0.2] * 100})
    assert choose_mixture(dict.fromkeys(losses, 0.9), losses, labels, 0.9) == 0.8


def test_what_was_had_is_kept_only_if_all_else_is_less_accurate() -> None:
    labels = torch.zeros(3, dtype=torch.long)
    losses = of({0.0: [0.1, 0.1, 0.1], 1.0: [0.3, 0.3, 0.3]})
    assert choose_mixture({0.0: 0.2, 1.0: 0.2}, losses, labels, 0.2) == 1.0, "as accurate"
    assert choose_mixture({0.0: 0.2, 1.0: 0.1}, losses, labels, 0.2) == 0.0
    assert choose_mixture({1.0: 0.1}, {1.0: losses[1.0]}, labels, 0.2) == 1.0, "nothing else is at hand"


def test_infinite_constants_are_kept() -> None:
    own = {"mask": torch.tensor([0.0, -float("inf")]), "w": torch.tensor([0.0, 1.0])}
    received = {"mask": own["mask"].clone(), "w": torch.tensor([1.0, 1.0])}
    mixed = mixture(own, received, 0.25)
    assert torch.equal(mixed["mask"], own["mask"])
    assert mixed["w"].tolist() == [0.25, 1.0]
