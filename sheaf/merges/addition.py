"""What adds updates to sums: float32 times a weight, to float64.

torch widens an update and then adds it, two passes where memory has time for one. Compiled, it is one, and a
merge takes as long as reading its updates. To load a compiler takes most of a second, which a small fleet
never wins back: torch adds until it has added ``WORTH`` numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Add = Callable[[Tensor, Sequence[Tensor], Sequence[float]], None]
"""total += weight * value for one after another: a contiguous float64 total, floating values of its shape."""

WORTH = 10**9
"""Numbers that torch adds first, in about as long as it takes to load a compiler."""

_32: TypeAlias = NDArray[np.float32]
_64: TypeAlias = NDArray[np.float64]

_lock = threading.Lock()
_added = 0


def addition(numbers: int) -> Add:
    """What adds the next so many numbers, in this process. The bits are the same whichever it is."""
    global _added
    with _lock:
        _added += numbers
        return by_torch if _added <= WORTH else compiled()


def by_torch(total: Tensor, values: Sequence[Tensor], weights: Sequence[float]) -> None:
    """Adds in two passes."""
    for value, weight in zip(values, weights, strict=True):
        total.add_(value, alpha=weight)


@cache
def compiled() -> Add:
    """Adds in one pass; torch where it rounds otherwise on this machine, as a sum must not tell who added."""
    from numba import njit

    @njit(
        "void(f8[::1], f4[::1], f4[::1], f4[::1], f4[::1], f8, f8, f8, f8)", nogil=True, fastmath={"contract"}
    )
    def four(t: _64, a: _32, b: _32, c: _32, d: _32, wa: float, wb: float, wc: float, wd: float) -> None:
        for i in range(t.size):
            t[i] = (((t[i] + wa * a[i]) + wb * b[i]) + wc * c[i]) + wd * d[i]

    @njit("void(f8[::1], f4[::1], f8)", nogil=True, fastmath={"contract"})
    def one(t: _64, a: _32, wa: float) -> None:
        for i in range(t.size):
            t[i] += wa * a[i]

    def in_one_pass(total: Tensor, values: Sequence[Tensor], weights: Sequence[float]) -> None:
        if any(value.dtype != torch.float32 for value in values):
            by_torch(total, values, weights)
            return
        t, flat = total.view(-1).numpy(), [value.detach().reshape(-1).numpy() for value in values]
        last = len(flat) - len(flat) % 4
        for k in range(0, last, 4):
            (a, b, c, d), (wa, wb, wc, wd) = flat[k : k + 4], weights[k : k + 4]
            four(t, a, b, c, d, wa, wb, wc, wd)
        for k in range(last, len(flat)):
            one(t, flat[k], weights[k])

    return in_one_pass if _same_bits(in_one_pass, by_torch) else by_torch


def _same_bits(one: Add, other: Add) -> bool:
    """Whether both round alike: a product and its sum once, or each."""
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(23, 1_003, generator=draws)
    weights = torch.rand(23, generator=draws, dtype=torch.float64).tolist()
    totals = torch.zeros(2, 1_003, dtype=torch.float64)
    for add, total in zip((one, other), totals, strict=True):
        add(total, values.unbind(), weights)
    return torch.equal(*totals)
