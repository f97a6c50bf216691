"""Redundant operations are removed, and only these: every replay has the bits of the function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sheaf.training import replay
from sheaf.training.cpu_graph import CpuGraphFunction
from sheaf.training.operation import Operation
from sheaf.training.redundant_operations import without_redundant

W = torch.arange(4.0)


def product_with_one(x: Tensor, w: Tensor) -> Tensor:
    return (x * 1 + w) * 1 - 2


def repeated(x: Tensor, w: Tensor) -> Tensor:
    return x.exp() + x.exp() * w


def constant(x: Tensor, w: Tensor) -> Tensor:
    return x.sin() + torch.ones_like(x) + x.new_zeros(4)


def unread(x: Tensor, w: Tensor) -> Tensor:
    x.cos()
    return x.sin()


def product_with_one_of_changed(x: Tensor, w: Tensor) -> Tensor:
    before = w * 1
    w.add_(x)
    return before + w


def repeated_after_change(x: Tensor, w: Tensor) -> Tensor:
    before = w.exp()
    w.add_(x)
    return before + w.exp()


def changed_constant(x: Tensor, w: Tensor) -> Tensor:
    return torch.zeros_like(x).add_(x) + w


def product_with_one_that_changes(x: Tensor, w: Tensor) -> Tensor:
    return (w * 1).add_(x) + w


def other_type(x: Tensor, w: Tensor) -> Tensor:
    return (x > 1) * 1.0 + w


def view_of_product_with_one(x: Tensor, w: Tensor) -> Tensor:
    return (w.view(2, 2) * 1)[1].repeat(2) + x


def input_itself(x: Tensor, w: Tensor) -> Tensor:
    return x


def part_of_input(x: Tensor, w: Tensor) -> Tensor:
    return x[2:].repeat(2) + x[0] + w


def changed_input(x: Tensor, w: Tensor) -> Tensor:
    return x.mul_(2) + w


@pytest.mark.parametrize(
    ("function", "removed"),
    [
        (product_with_one, 2),
        (repeated, 1),
        (constant, 2),
        (unread, 1),
        (product_with_one_of_changed, 0),
        (repeated_after_change, 0),
        (changed_constant, 0),
        (product_with_one_that_changes, 0),
        (other_type, 0),
        (view_of_product_with_one, 1),
        (input_itself, 0),
        (part_of_input, 0),
        (changed_input, 0),
    ],
)
def test_bits_and_number_of_operations(
    function: Callable[[Tensor, Tensor], Tensor], removed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(operations: list[Operation], kept: tuple[Tensor, ...]) -> list[Operation]:
        rest = without_redundant(operations, kept)
        counts.append(sum(not each.is_view for each in operations) - sum(not each.is_view for each in rest))
        return rest

    monkeypatch.setattr(replay, "without_redundant", counted)
    own, expected = W.clone(), W.clone()
    recorded = CpuGraphFunction(lambda x: (function(x, own),), lambda: [own])
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for inputs in (x, x + 1, x.repeat_interleave(2, 1)[:, ::2]):  # the last: entries with gaps
        (results,) = recorded.successive(inputs.clone() if inputs.is_contiguous() else inputs)
        wanted = torch.stack([function(each.clone(), expected).clone() for each in inputs])
        assert torch.equal(results, wanted)
        assert torch.equal(own, expected)
    assert counts == [removed]
