"""Merge by coverage: each coordinate of the global model is averaged over the sites that hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from sheaf.core.thread_pool import side_by_side
from sheaf.core.types import Params
from sheaf.merges.addition import Add, addition
from sheaf.submodels.submodel import SubModel


def average(theta: Params, weighted: Iterable[tuple[Params, float]]) -> dict[str, Tensor]:
    """sum_k w_k theta_k / sum_k w_k for floating tensors; integer buffers are those of the first site.

    Sums run in float64 in the order given. However many updates there are, one model is held, and so many
    updates at a time as fit ``AT_ONCE``, at least one. Integer buffers (batch norm's step counters) mean
    nothing averaged, so they are taken, not averaged.

    Args:
        theta: what is being merged into: gives the names, shapes and types of the result.
        weighted: each site's parameters with its weight, in the fixed order of sites.

    Raises:
        ValueError: there is nothing to merge, or the weights sum to nothing.
    """
    floating = {name: value for name, value in theta.items() if value.is_floating_point()}
    sums = {name: torch.empty(value.shape, dtype=torch.float64) for name, value in floating.items()}
    merged: dict[str, Tensor] = {}
    total = 0.0
    with _cores_for(theta) as cores:
        for window in _windows(weighted, sum(value.nbytes for value in theta.values())):
            begins = total == 0
            total += sum(weight for _, weight in window)
            beside = _beside(sums, [params for params, _ in window])
            add = addition(len(window) * sum(value.numel() for value in sums.values()))
            _dealt(cores, _add, beside, [weight for _, weight in window], begins, add)
            for name in theta.keys() - sums.keys():
                merged.setdefault(name, window[0][0][name])
            window.clear()  # before the next ones come
        if total <= 0:
            raise ValueError("a merge needs at least one update of positive weight")
        means = {name: torch.empty(value.shape, dtype=value.dtype) for name, value in floating.items()}
        _dealt(cores, _divide, _beside(sums, [means]), total)
    return {name: means[name] if name in means else merged[name] for name in theta}


_Beside = tuple[Tensor, tuple[Tensor, ...]]
"""A piece of a tensor, and the same piece of others."""


def _beside(sums: Mapping[str, Tensor], others: Sequence[Params]) -> list[_Beside]:
    """Every piece of the sums: what is added to it, of several updates, finds it in the cache."""
    beside = []
    for name, own in sums.items():
        of_others = zip(*(_pieces(other[name]) for other in others), strict=True)
        beside += list(zip(_pieces(own), of_others, strict=True))
    return beside


def _pieces(value: Tensor) -> Sequence[Tensor]:
    return (value,) if value.numel() <= PIECE else torch.split(value.reshape(-1), PIECE)


def _add(piece: _Beside, weights: Sequence[float], begins: bool, add: Add) -> None:
    total, values = piece
    if begins:
        total.zero_()
    add(total, values, weights)


def _divide(piece: _Beside, by: float) -> None:
    total, (mean,) = piece
    mean.copy_(total.div_(by))


def _windows(weighted: Iterable[tuple[Params, float]], size: int) -> Iterator[list[tuple[Params, float]]]:
    """So many at a time as fit ``AT_ONCE``, of ``size`` bytes each."""
    left = iter(weighted)
    while window := list(islice(left, max(1, AT_ONCE // max(1, size)))):
        yield window


def _dealt(cores: int, do: Callable[..., None], pieces: Sequence[_Beside], *with_it: Any) -> None:
    """Does it with every piece, dealt out to the cores; each is summed in one order on however many."""

    def of_core(core: int) -> None:
        for piece in pieces[core::cores]:
            do(piece, *with_it)

    side_by_side(of_core, range(cores))


def average_by_entry(
    theta: Params, weighted: Iterable[tuple[Params, float, Mapping[str, Tensor]]]
) -> dict[str, Tensor]:
    """``average``, where the entries of some tensors have weights of their own.

    Args:
        theta: see ``average``; an entry whose own weights sum to nothing stays as it is here.
        weighted: each site's parameters, their weight, and by name the weights of entries, of the tensor's
            shape or broadcast to it: the same names from every site.

    Raises:
        ValueError: see ``average``.
    """
    sums: dict[str, Tensor] = {}
    totals: dict[str, Tensor] = {}

    def summed() -> Iterator[tuple[Params, float]]:
        for params, weight, own in weighted:
            for name, entries in own.items():
                part = params[name].double().mul(entries)
                sums[name] = sums[name].add_(part) if name in sums else part
                totals[name] = totals[name].add_(entries) if name in totals else entries.double().clone()
            yield params, weight

    merged = average(theta, summed())
    for name, total in totals.items():
        value = theta[name]
        merged[name] = torch.where(total > 0, sums.pop(name).div_(total).to(value.dtype), value)
    return merged


def misfit(theta: Params, params: Params) -> str | None:
    """Why ``params`` cannot stand in for ``theta``: a name, a shape, a type, a value; None where it can."""
    if missing := [name for name in theta if name not in params]:
        return f"{missing[0]} is missing"
    if foreign := [name for name in params if name not in theta]:
        return f"{foreign[0]} is not a parameter of the model"
    with _cores_for(theta):
        for name, value in params.items():
            expected = theta[name]
            if value.shape != expected.shape:
                return f"{name} has shape {tuple(value.shape)} instead of {tuple(expected.shape)}"
            if value.dtype != expected.dtype:
                return f"{name} is {value.dtype} instead of {expected.dtype}"
            if value.is_floating_point() and not _is_finite(value):
                return f"{name} has values that are not finite"
    return None


def _is_finite(value: Tensor) -> bool:
    """A sum is a tenth of the work, and finite only if all is; where it is not, it may just be too large."""
    return math.isfinite(value.sum().item()) or bool(value.isfinite().all())


PIECE = 2**18
"""How many numbers are added at a time: 2 MiB of float64, beside which starting an operation is little."""

AT_ONCE = 2**28
"""Bytes of updates that are added in one go over the sums."""

SMALL, SMALL_TENSORS = 2_000_000, 30_000
"""Up to so many numbers, or so many a tensor, a second core gains less than waiting for it can cost."""


@contextmanager
def _cores_for(theta: Params) -> Iterator[int]:
    """One core for a small model: waiting for one that others use costs most of a merge of many updates."""
    threads = torch.get_num_threads()
    try:
        numbers = sum(value.numel() for value in theta.values())
        if numbers <= max(SMALL, SMALL_TENSORS * len(theta)):
            torch.set_num_threads(1)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)


def bind(
    theta: Params, contributions: Iterable[tuple[SubModel, Params, float]], fill: Literal["zero", "keep"]
) -> dict[str, Tensor]:
    """The global model from the parts: each coordinate averaged over the parts that hold it.

    theta[i] = sum_k w_k theta_k[i] / sum_k w_k over the parts k that hold i. Sums run in float64 in the
    order given, and hold one model and one part at a time however many there are. Integer buffers (batch
    norm's step counters) are those of the first. With whole parts this is ``coverage.average``.

    Args:
        theta: what is being merged into: gives the names, shapes and types of the result.
        contributions: each site's part, its parameters and its weight, in the fixed order of sites.
        fill: what no part holds becomes 0 (the weights between the blocks of decoupled parts), or
            stays as it is in ``theta`` (HeteroFL, FedRolex).

    Raises:
        ValueError: there is nothing to merge, or the weights sum to nothing.
    """
    floating = {name: value for name, value in theta.items() if value.is_floating_point()}
    sums = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in floating.items()}
    counts = {name: torch.zeros([1] * value.dim(), dtype=torch.float64) for name, value in floating.items()}
    taken: dict[str, Tensor] = {}
    total = 0.0
    for part, params, weight in contributions:
        total += weight
        part.put(sums, counts, params, weight)
        taken = taken or {name: value for name, value in params.items() if name not in floating}
    if total <= 0:
        raise ValueError("a merge needs at least one update of positive weight")
    merged = {}
    for name, value in theta.items():
        if name not in floating:
            merged[name] = taken[name]
            continue
        count = counts.pop(name)
        mean = sums.pop(name).div_(count).to(value.dtype)
        unheld = value if fill == "keep" else torch.zeros((), dtype=value.dtype)
        merged[name] = torch.where(count > 0, mean, unheld)
    return merged
