"""Merge by coverage: each coordinate of the global model is averaged over the sites that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from sheaf.types import Params


def average(theta: Params, weighted: Iterable[tuple[Params, float]]) -> dict[str, Tensor]:
    """sum_k w_k theta_k / sum_k w_k for floating tensors; integer buffers are those of the first site.

    Sums run in float64 in the order given, and hold one model and one update at a time however many there
    are. Integer buffers (batch norm's step counters) mean nothing averaged, so they are taken, not averaged.

    Args:
        theta: what is being merged into: gives the names, shapes and types of the result.
        weighted: each site's parameters with its weight, in the fixed order of sites.

    Raises:
        ValueError: there is nothing to merge, or the weights sum to nothing.
    """
    sums = {
        name: torch.zeros(value.shape, dtype=torch.float64)
        for name, value in theta.items()
        if value.is_floating_point()
    }
    merged: dict[str, Tensor] = {}
    total = 0.0
    with _cores_for(theta) as cores, _Adder(cores) as adder:
        for params, weight in weighted:
            total += weight
            adder.add(sums, params, weight)
            for name in params.keys() - sums.keys():
                merged.setdefault(name, params[name])
    if total <= 0:
        raise ValueError("a merge needs at least one update of positive weight")
    for name, value in theta.items():
        if value.is_floating_point():
            merged[name] = sums.pop(name).div_(total).to(value.dtype)
    return {name: merged[name] for name in theta}


class _Adder:
    """Adds updates to sums, a piece of a tensor at a time: what is widened to float64 stays in the cache.

    Pieces are dealt out to the cores; each is summed in one order, however many cores there are.
    """

    def __init__(self, cores: int) -> None:
        self._rooms = [torch.empty(PIECE, dtype=torch.float64) for _ in range(cores)]
        self._pool = ThreadPoolExecutor(cores, initializer=lambda: torch.set_num_threads(1))

    def add(self, sums: Mapping[str, Tensor], params: Params, weight: float) -> None:
        """Adds ``weight`` times those of ``params`` that have sums."""
        pieces = [
            piece
            for name, total in sums.items()
            for piece in zip(_pieces(total), _pieces(params[name]), strict=True)
        ]

        def of_core(core: int) -> None:
            room = self._rooms[core]
            for total, value in pieces[core :: len(self._rooms)]:
                total.add_(room[: len(value)].copy_(value), alpha=weight)

        if len(self._rooms) == 1:
            of_core(0)
        else:
            list(self._pool.map(of_core, range(len(self._rooms))))

    def __enter__(self) -> _Adder:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()


def _pieces(value: Tensor) -> Sequence[Tensor]:
    return torch.split(value.reshape(-1), PIECE)


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
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


PIECE = 2**17
"""How many numbers are added at a time: 1 MiB of float64, beside which starting an operation is little."""

SMALL = 2_000_000
"""Up to so many numbers a second core gains less than waiting for it can cost."""


@contextmanager
def _cores_for(theta: Params) -> Iterator[int]:
    """One core for a small model: waiting for one that others use costs most of a merge of many updates."""
    threads = torch.get_num_threads()
    try:
        if sum(value.numel() for value in theta.values()) <= SMALL:
            torch.set_num_threads(1)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)
