"""Align two networks: permute the channels of one, which keeps its function, to match the other.

Git Re-Basin: Merging Models modulo Permutation Symmetries. Ainsworth, Hayase, Srinivasa. ICLR 2023.
arXiv:2209.04836, section 3.2: matching weights

The channels of a group (see ``structure``) can have any order that all layers which make or take them share.
A group of several equal blocks (grouped convolutions) has the same order in each: units are permuted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from sheaf.core.errors import CutError
from sheaf.core.optional_imports import needs
from sheaf.core.types import Params
from sheaf.models.checkpoints import load_state
from sheaf.models.flops import copy_to
from sheaf.submodels.structure import Axis, ChannelGroup, ChannelStructure

SWEEPS = 100
"""The maximum number of passes over all groups; every change increases the similarity, so few are needed."""

Positions = list[tuple[Axis, Tensor]]
"""The positions of a group's units: axes, each with the (units, n) indices of each unit along it."""


def permute(
    structure: ChannelStructure, params: Params, group: str, order: Sequence[int]
) -> dict[str, Tensor]:
    """Return ``params`` with unit ``order[i]`` of a group moved to position i."""
    (by_name,) = (each for each in structure.groups if each.name == group)
    return _permute(positions(structure, by_name), params, torch.as_tensor(order))


def align(
    structure: ChannelStructure, reference: Params, params: Params, by: Collection[str]
) -> dict[str, Tensor]:
    """Return ``params`` with the units of every group in the order most similar to ``reference``.

    Maximises <reference, params> over all orders by coordinate ascent: one group at a time in depth order,
    each by the best assignment given the others, until no group changes. The result is a local maximum that
    depends on the start, so it runs twice: from the given order, and from an order computed from the inputs
    on, in which each group is matched only by tensors whose other groups are matched already. The better
    result is returned.

    Args:
        by: the names of the tensors that are compared: the parameters, not the statistics of batch norm.
    """
    groups = {group.name: at for group in structure.groups if (at := positions(structure, group))}
    from_given = _ascend(groups, reference, dict(params), by)
    from_inputs = _ascend(groups, reference, _from_inputs(groups, reference, dict(params), by), by)
    return max(from_given, from_inputs, key=lambda aligned: _inner_product(reference, aligned, by))


def _ascend(
    groups: Mapping[str, Positions], reference: Params, params: dict[str, Tensor], by: Collection[str]
) -> dict[str, Tensor]:
    for _ in range(SWEEPS):
        changed = False
        for group in groups.values():
            candidate = _matched(group, reference, params, by)
            # For a layer that both takes and makes the group the product is quadratic in the order, and the
            # assignment is only a candidate.
            touched = {axis.tensor for axis, _ in group} & set(by)
            before, after = (_inner_product(reference, each, touched) for each in (params, candidate))
            if after - before > 1e-9 * abs(before):
                params, changed = candidate, True
        if not changed:
            break
    return params


def _from_inputs(
    groups: Mapping[str, Positions], reference: Params, params: dict[str, Tensor], by: Collection[str]
) -> dict[str, Tensor]:
    unmatched = dict.fromkeys(groups)
    for name, group in groups.items():
        del unmatched[name]
        excluded = {axis.tensor for other in unmatched for axis, _ in groups[other]}
        params = _matched(group, reference, params, set(by) - excluded)
    return params


def check_same_function(
    model: nn.Module, in_shape: tuple[int, ...], params: Params, permuted: Params
) -> None:
    """Check that both compute the same logits for one input.

    A model can pass channels on in ways that the groups do not show.

    Raises:
        CutError: the logits differ.
    """
    x = torch.randn(8, *in_shape, generator=torch.Generator().manual_seed(0))
    model = copy_to(torch.device("cpu"), model).eval()
    logits = []
    for each in (params, permuted):
        load_state(model, each)
        with torch.no_grad():
            logits.append(model(x))
    off = (logits[0] - logits[1]).abs().max() / logits[0].abs().max().clamp_min(1e-12)
    if not off < 1e-3:
        raise CutError(
            f"the model's channels cannot be reordered: its logits change by {off:.1g} of the largest"
        )


def positions(structure: ChannelStructure, group: ChannelGroup) -> Positions:
    """Return the positions of a group's units; empty for a single unit, or if the units differ in use."""
    found: Positions = []
    for axis in structure.axes:
        own = [
            (n, channel[1]) for n, channel in enumerate(axis.channels) if channel and channel[0] == group.name
        ]
        if not own:
            continue
        units: list[list[tuple[int, int]]] = [[] for _ in range(group.units)]
        for index, number in own:
            block, unit = divmod(number, group.units)
            units[unit].append((block, index))
        if len({tuple(block for block, _ in sorted(unit)) for unit in units}) > 1:
            return []
        found.append((axis, torch.tensor([[index for _, index in sorted(unit)] for unit in units])))
    return found


def _matched(
    group: Positions, reference: Params, params: dict[str, Tensor], by: Collection[str]
) -> dict[str, Tensor]:
    """Return ``params`` with one group in the order most similar to the reference's."""
    with needs("workstation"):
        from scipy.optimize import linear_sum_assignment  # slow to import, and few runs match weights

    _, order = linear_sum_assignment(_similarity(group, reference, params, by), maximize=True)
    return params if (order[:-1] < order[1:]).all() else _permute(group, params, torch.as_tensor(order))


def _permute(group: Positions, params: Params, order: Tensor) -> dict[str, Tensor]:
    moved = dict(params)
    for axis, indices in group:
        along = torch.arange(len(axis.channels))
        along[indices] = indices[order]
        moved[axis.tensor] = moved[axis.tensor].index_select(axis.dim, along)
    return moved


def _similarity(group: Positions, reference: Params, params: Params, by: Collection[str]) -> Tensor:
    """Return (units, units) the inner products of the reference's units with the other network's."""
    total = torch.zeros(len(group[0][1]), len(group[0][1]), dtype=torch.float64)
    for axis, indices in group:
        if axis.tensor in by:
            one, other = (
                each[axis.tensor].double().movedim(axis.dim, 0)[indices].flatten(1)
                for each in (reference, params)
            )
            total += one @ other.T
    return total


def _inner_product(one: Params, other: Params, names: Collection[str]) -> float:
    return sum(float((one[name].double() * other[name].double()).sum()) for name in sorted(names))
