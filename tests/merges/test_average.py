"""The average by coverage, and what is no answer to merge."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from sheaf.merges import average as module
from sheaf.merges.average import Contribution
from sheaf.merges.check import are_finite, misfit

THETA = {"w": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.float64), "steps": torch.tensor(7)}
SIZE = sum(value.nbytes for value in THETA.values())


def average(
    theta: dict[str, Tensor], weighted: Iterable[tuple[dict[str, Tensor], float]]
) -> dict[str, Tensor]:
    return module.average(theta, (Contribution(params, weight) for params, weight in weighted))


def params(value: float, steps: int = 1) -> dict[str, Tensor]:
    return {
        "w": torch.full((2, 3), value),
        "b": torch.full((2,), value, dtype=torch.float64),
        "steps": torch.tensor(steps),
    }


def test_weights() -> None:
    merged = average(THETA, [(params(1.0, 5), 1.0), (params(4.0, 6), 3.0)])
    assert merged["w"].tolist() == [[3.25] * 3] * 2
    assert merged["b"].tolist() == [3.25] * 2
    assert merged["steps"].item() == 5, "the first site's, not an average"
    assert list(merged) == list(THETA)


def test_a_site_of_weight_nothing_changes_nothing() -> None:
    assert torch.equal(average(THETA, [(params(1.0), 2.0), (params(9.0), 0.0)])["w"], params(1.0)["w"])


def test_infinity_of_weight_nothing_changes_nothing() -> None:
    masked = {**params(1.0), "w": torch.full((2, 3), float("-inf"))}
    assert average(THETA, [(params(2.0), 1.0), (masked, 0.0)])["w"].tolist() == [[2.0] * 3] * 2
    by_row = {"w": torch.tensor([[1.0], [0.0]])}
    other = Contribution(masked, 1.0, entry_weights={"w": 1 - by_row["w"]})
    merged = module.average(THETA, [Contribution(params(2.0), 1.0, entry_weights=by_row), other])
    assert merged["w"].tolist() == [[2.0] * 3, [float("-inf")] * 3]


def test_what_was_sent_is_not_written_into() -> None:
    sent = [params(1.0), params(2.0)]
    average(THETA, [(sent[0], 3.0), (sent[1], 5.0)])
    for value, given in zip((1.0, 2.0), sent, strict=True):
        assert all(torch.equal(given[name], tensor) for name, tensor in params(value).items())
    assert not THETA["w"].any()


def test_sums_run_in_float64() -> None:
    one, large = {"w": torch.ones(1)}, {"w": torch.full((1,), 2.0**24)}
    merged = average({"w": torch.zeros(1)}, [(large, 1.0), (one, 1.0), (one, 1.0), ({"w": -large["w"]}, 1.0)])
    assert merged["w"].item() == 0.5  # in float32 the ones would be lost


@pytest.mark.parametrize(("window", "few"), [(0, 1), (4 * SIZE, 4)])
def test_it_takes_few_updates_at_a_time(window: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", window)
    alive = 0
    most = 0

    class Counted(dict):
        def __init__(self, value: float) -> None:
            nonlocal alive, most
            super().__init__(params(value))
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    merged = average(THETA, ((Counted(float(value)), 1.0) for value in range(50)))
    assert merged["b"].tolist() == [24.5] * 2
    assert most <= few + 1


@pytest.mark.parametrize("weighted", [[], [(params(1.0), 0.0)]])
def test_nothing_to_merge(weighted: list[tuple[dict[str, Tensor], float]]) -> None:
    with pytest.raises(ValueError, match="at least one update of positive weight"):
        average(THETA, weighted)


def test_what_fits() -> None:
    assert misfit(THETA, params(1.0)) is None
    assert misfit(THETA, dict(reversed(params(1.0).items()))) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"w": None}, "w is missing"),
        ({"head": torch.zeros(1)}, "head is not a parameter of the model"),
        ({"w": torch.zeros(3, 2)}, r"w has shape \(3, 2\) instead of \(2, 3\)"),
        ({"w": torch.zeros(1, 3)}, r"w has shape \(1, 3\) instead of \(2, 3\)"),  # would broadcast
        ({"w": torch.zeros(())}, r"w has shape \(\) instead of \(2, 3\)"),
        ({"b": torch.zeros(2)}, "b is torch.float32 instead of torch.float64"),
        ({"steps": torch.tensor(7.0)}, "steps is torch.float32 instead of torch.int64"),
        ({"b": torch.tensor([0.0, float("nan")]).double()}, "b has values that are not finite"),
        ({"w": torch.full((2, 3), float("inf"))}, "w has values that are not finite"),
        ({"w": torch.full((2, 3), -float("inf"))}, "w has values that are not finite"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], why: str) -> None:
    changed = {name: value for name, value in (params(1.0) | change).items() if value is not None}
    found = misfit(THETA, changed)
    assert found is not None
    assert re.fullmatch(why, found)


def test_a_constant_may_be_infinite() -> None:
    theta = {"mask": torch.tensor([0.0, -float("inf"), float("nan")]), "w": torch.zeros(2)}
    assert misfit(theta, {name: value.clone() for name, value in theta.items()}) is None
    changed = theta | {"mask": torch.tensor([-float("inf"), -float("inf"), float("nan")])}
    assert misfit(theta, changed) == "mask has values that are not finite"


def test_the_number_of_threads_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        average(THETA, [(params(1.0), 1.0)])
        assert misfit(THETA, params(float("nan"))) is not None
        with pytest.raises(ValueError, match="positive weight"):
            average(THETA, [])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_finite_numbers_whose_sum_is_not_are_finite(dtype: torch.dtype) -> None:
    theta = {"w": torch.zeros(9, dtype=dtype)}
    large = torch.full((9,), torch.finfo(dtype).max, dtype=dtype)
    assert misfit(theta, {"w": large}) is None
    assert are_finite({"w": large, "steps": torch.tensor(7)})
    for bad in (float("inf"), float("-inf"), float("nan")):
        spoiled = large.clone()
        spoiled[3] = bad
        assert misfit(theta, {"w": spoiled}) == "w has values that are not finite"
        assert not are_finite({"w": spoiled})
    both = torch.zeros(9, dtype=dtype)
    both[2], both[5] = float("inf"), float("-inf")
    assert misfit(theta, {"w": both}) == "w has values that are not finite"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("window", [0, 2**26])
def test_pieces_windows_and_cores_change_no_bit(
    threads: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.Generator().manual_seed(1)
    theta = {"w": torch.zeros(5, 3, 2, 2), "b": torch.zeros(3), "scale": torch.zeros(())}
    sent = [
        {name: torch.randn(value.shape, generator=draws) for name, value in theta.items()} for _ in range(7)
    ]
    for each in sent[::2]:
        each["w"] = each["w"].to(memory_format=torch.channels_last)
    weighted = [(each, 1.0 + k / 3) for k, each in enumerate(sent)]
    expected = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in theta.items()}
    for params_of_one, weight in weighted:
        for name, total in expected.items():
            total.add_(params_of_one[name].double(), alpha=weight)
    usual = torch.get_num_threads()
    sizes = {"PIECE": 8, "LEAST_PIECE": 4, "SMALL": 0, "SMALL_TENSORS": 0, "WINDOW_BYTES": window}
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    try:
        torch.set_num_threads(threads)
        merged = average(theta | {"w": theta["w"].to(memory_format=torch.channels_last)}, weighted)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(usual)
    for name, total in expected.items():
        assert torch.equal(merged[name], (total / sum(weight for _, weight in weighted)).float()), name
        assert merged[name].is_contiguous()
