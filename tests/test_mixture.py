"""Between two models: exact at the ends, linear between them."""

from __future__ import annotations

from random import Random

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


@given(
    st.dictionaries(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1), min_size=1),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_the_best_is_chosen_of_what_is_as_accurate(
    accuracies: dict[float, float], baseline: float, draws: Random
) -> None:
    scores = {a: draws.uniform(0, 2) for a in accuracies}
    chosen = choose_mixture(accuracies, scores, baseline)
    good = {a for a in accuracies if accuracies[a] >= baseline - 1e-9 and a > min(accuracies)}
    assert chosen in good if good else chosen == min(accuracies)
    assert all(scores[chosen] <= scores[a] for a in good)


def test_what_was_had_is_kept_only_if_all_else_is_less_accurate() -> None:
    scores = {0.0: 0.1, 0.5: 0.3, 1.0: 0.3}
    assert choose_mixture({0.0: 0.2, 0.5: 0.2, 1.0: 0.2}, scores, 0.2) == 1.0, "of two as good the larger"
    assert choose_mixture({0.0: 0.2, 0.5: 0.2, 1.0: 0.1}, scores, 0.2) == 0.5
    assert choose_mixture({0.0: 0.2, 0.5: 0.1, 1.0: 0.1}, scores, 0.2) == 0.0
    assert choose_mixture({1.0: 0.1}, {1.0: 0.3}, 0.2) == 1.0, "nothing else is at hand"
