"""Average models: each coordinate is averaged over the sites that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sheaf.core.thread_pool import side_by_side
from sheaf.core.types import Params
from sheaf.submodels.submodel import SubModel

PIECE = 2**15
"""Entries of a tensor that are summed at a time: 256 KiB in float64, which stays in a core's cache."""

WINDOW_BYTES = 2**28
"""Updates are read a few at a time, up to this size together; at least one."""

SMALL, SMALL_TENSORS = 2_000_000, 20_000
"""Models of at most this many entries together, or on average a tensor, are summed on one core."""

LEAST_PIECE = 2**14
"""Entries of a tensor that are not divided among the cores."""

Count = float | Tensor
"""The weight gathered by the coordinates of a tensor: one number, or float64 broadcast to its shape."""


class Contribution(NamedTuple):
    """One site's parameters and their weight in an average.

    Attributes:
        params: of the whole model, or of ``submodel``. Not modified.
        weight: at least 0.
        submodel: the sub-model that the parameters are of; None for the whole model.
        entry_weights: tensor name -> weights that replace ``weight`` for its entries, broadcast to the
            tensor's shape. Only for the whole model.
    """

    params: Params
    weight: float
    submodel: SubModel | None = None
    entry_weights: Mapping[str, Tensor] = {}


def average(
    theta: Params, contributions: Iterable[Contribution], unheld: Literal["keep", "zero"] = "keep"
) -> dict[str, Tensor]:
    """Return theta[i] = sum_k w_k theta_k[i] / sum_k w_k, over the sites k that hold coordinate i.

    Sums run in float64 in the order given: the bits depend neither on the number of cores nor on how many
    updates are read at a time. Memory holds the sums and ``WINDOW_BYTES`` of updates, for any number of
    sites. Integer buffers, such as the step counters of batch norm, are those of the first site.

    Args:
        theta: the model that is merged into; gives the names, shapes and types of the result.
        contributions: one for each site, in the fixed order of sites. A sub-model's "other" row is folded
            into the rows of its classes first (``SubModel.fold_other``).
        unheld: coordinates of total weight 0 keep their value in ``theta`` (HeteroFL, FedRolex), or become 0
            (the weights between the blocks of decoupled sub-models).

    Raises:
        ValueError: there is nothing to merge, or the weights sum to 0.
    """
    floating = {name: value for name, value in theta.items() if value.is_floating_point()}
    sums: dict[str, Tensor] = {}
    counts: dict[str, Count] = dict.fromkeys(floating, 0.0)
    buffers: dict[str, Tensor] = {}
    total = 0.0
    for window in _windows(contributions, sum(value.nbytes for value in theta.values())):
        total += sum(each.weight for each in window)
        sums = sums or _zeros(floating, window[0])
        buffers = buffers or {name: window[0].params[name] for name in theta.keys() - floating.keys()}
        with cores_for(theta, len(window)) as cores:
            _deal(cores, _add, _pieces(sums, window, cores), [each.weight for each in window])
            for each in window:
                _add_by_entry(sums, counts, each)
                _count(counts, sums, each)
        window.clear()  # frees the updates before the next ones are read
    if total <= 0:
        raise ValueError("a merge needs at least one update of positive weight")
    means = {name: torch.empty_like(sums[name], dtype=value.dtype) for name, value in floating.items()}
    dense = [name for name in floating if isinstance(counts[name], float)]  # count: total
    with cores_for(theta) as cores:
        pieces = [pair for name in dense for pair in _split(sums[name], [means[name]], cores)]
        _deal(cores, _divide, pieces, total)
    for name, count in counts.items():
        if isinstance(count, Tensor):
            mean = sums.pop(name).div_(count).to(means[name].dtype)
            means[name] = torch.where(
                count > 0, mean, theta[name] if unheld == "keep" else mean.new_zeros(())
            )
    return {name: means[name].contiguous() if name in means else buffers[name] for name in theta}


Piece = tuple[Tensor, Sequence[Tensor]]
"""A view of a sum, and the same entries of several models."""


def _zeros(floating: Params, first: Contribution) -> dict[str, Tensor]:
    """Return zeros in float64, with the strides of the first model: other strides take five times as long."""
    like = floating if first.submodel else first.params
    return {name: torch.zeros_like(like[name], dtype=torch.float64) for name in floating}


def _windows(contributions: Iterable[Contribution], size: int) -> Iterator[list[Contribution]]:
    """Yield contributions of one sub-model, up to ``WINDOW_BYTES`` together at ``size`` bytes each."""
    most = max(1, WINDOW_BYTES // max(1, size))
    window: list[Contribution] = []
    for each in contributions:
        if window and each.submodel is not window[0].submodel:
            yield window
            window = []
        window.append(_folded(each))
        del each  # the consumer frees the window while the next update is read
        if len(window) == most:
            yield window
            window = []
    if window:
        yield window


def _folded(each: Contribution) -> Contribution:
    if each.submodel is None or not each.submodel.cut.other:
        return each
    return each._replace(params=each.submodel.fold_other(each.params))


def _pieces(sums: Mapping[str, Tensor], window: Sequence[Contribution], cores: int) -> list[Piece]:
    """Return every sum in pieces for the cores, each with its entries in the window's models."""
    pieces: list[Piece] = []
    submodel, by_entry = window[0].submodel, window[0].entry_weights
    for name, total in sums.items():
        values = [each.params[name] for each in window]
        if submodel is not None:
            for inside, own in submodel.blocks(name):
                pieces.append((total[inside], [value[own] for value in values]))
        elif name not in by_entry:
            pieces += _split(total, values, cores)
    return pieces


def _split(total: Tensor, values: Sequence[Tensor], cores: int) -> list[Piece]:
    """Return a sum in pieces that fit a core's cache; of a large one, as many pieces for each core."""
    entries = total.numel()
    if entries <= (PIECE if cores == 1 else LEAST_PIECE):
        return [(total, values)]
    size = -(-entries // (cores * -(-entries // (cores * PIECE))))
    strides = total.stride()
    order = sorted(range(len(strides)), key=lambda dim: -strides[dim])  # in which the sum is contiguous
    flat = [torch.split(value.permute(order).reshape(-1), size) for value in (total, *values)]
    return [(first, rest) for first, *rest in zip(*flat, strict=True)]


def _deal(cores: int, function: Callable[..., None], pieces: Sequence[Piece], *arguments: Any) -> None:
    """Call the function with every piece, spread over the cores."""

    def of_core(core: int) -> None:
        for piece in pieces[core::cores]:
            function(piece, *arguments)

    side_by_side(of_core, range(cores))


def _add(piece: Piece, weights: Sequence[float]) -> None:
    total, values = piece
    converted = torch.empty_like(total)  # which ``add_`` would allocate for each value
    for value, weight in zip(values, weights, strict=True):
        if weight:  # 0 times infinity, in a mask, is not a number
            total.add_(converted.copy_(value), alpha=weight)


def _divide(piece: Piece, count: float) -> None:
    total, (mean,) = piece
    mean.copy_(total.div_(count))


def _add_by_entry(sums: dict[str, Tensor], counts: dict[str, Count], each: Contribution) -> None:
    for name, weights in each.entry_weights.items():
        sums[name] += torch.where(weights > 0, each.params[name].double().mul(weights), 0.0)
        counts[name] = weights.double() + counts[name]


def _count(counts: dict[str, Count], sums: Mapping[str, Tensor], each: Contribution) -> None:
    """Add the weight of a contribution to the counts of the coordinates that it holds."""
    for name, count in counts.items():
        if name in each.entry_weights:
            continue
        if each.submodel is None:
            counts[name] = count + each.weight
        else:
            counts[name] = each.submodel.add_weight(name, count, sums[name].shape, each.weight)


@contextmanager
def cores_for(theta: Params, models: int = 1) -> Iterator[int]:
    """Yield the number of cores to sum models on: one for few entries, where starting more takes longer."""
    threads = torch.get_num_threads()
    try:
        entries = sum(value.numel() for value in theta.values())
        if models * entries <= SMALL or entries <= SMALL_TENSORS * len(theta):
            torch.set_num_threads(1)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)
