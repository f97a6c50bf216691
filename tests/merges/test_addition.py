"""Whoever adds, the sum is the same; a compiler is loaded only where that pays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sheaf.merges import addition

COMPILED = addition.compiled()


def test_here_it_is_compiled() -> None:
    assert COMPILED is not addition.by_torch, "torch and the compiler round alike where we know"


@given(
    st.integers(0, 11),
    st.lists(st.integers(1, 5), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(0, 2**31),
)
def test_compiled_it_comes_to_the_same_bits(
    updates: int, shape: list[int], dtype: torch.dtype, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=draws).to(dtype) for _ in range(updates)]
    weights = torch.randn(updates, generator=draws, dtype=torch.float64).tolist()
    begun = torch.randn(shape, generator=draws, dtype=torch.float64)
    ended = []
    for add in (addition.by_torch, COMPILED):
        total = begun.clone()
        add(total, values, weights)
        ended.append(total)
    assert torch.equal(*ended)


def test_values_that_lie_otherwise_are_added_where_they_belong() -> None:
    values = [torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)] * 5
    total = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    COMPILED(total, values, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert torch.equal(total, 15 * torch.arange(24.0).view(1, 2, 3, 4).double())


def test_who_rounds_otherwise_is_found_out() -> None:
    def in_float32(total: Tensor, values: Sequence[Tensor], weights: Sequence[float]) -> None:
        for value, weight in zip(values, weights, strict=True):
            total.add_(value * weight)

    assert addition._same_bits(addition.by_torch, COMPILED)
    assert not addition._same_bits(addition.by_torch, in_float32)


def test_torch_adds_until_a_compiler_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addition, "WORTH", 100)
    monkeypatch.setattr(addition, "_added", 0)
    assert addition.addition(60) is addition.by_torch
    assert addition.addition(40) is addition.by_torch
    assert addition.addition(1) is COMPILED


def test_no_compiler_is_loaded_before() -> None:
    program = (
        "import sys, sheaf, sheaf.experiments.run, sheaf.merges.average; sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
