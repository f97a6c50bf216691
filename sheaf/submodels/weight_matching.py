"""Permutations of a network's channels that leave its function as it is, and how two networks are aligned.

Git Re-Basin: Merging Models modulo Permutation Symmetries. Ainsworth, Hayase, Srinivasa. ICLR 2023.
arXiv:2209.04836, section 3.2: matching weights

A group's channels (see ``cut``) can be put into any order, if all layers that make or take them agree. Where
a group is kept in equal runs (grouped convolutions), the same order holds in each: what moves is units.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from sheaf.core.errors import CutError
from sheaf.core.types import Params
from sheaf.models.flops import copy_to
from sheaf.submodels.structure import Axis, ChannelGroup, ChannelStructure

SWEEPS = 100
"""Over all groups, at most; every change makes the networks more alike, so few are needed."""

Places = list[tuple[Axis, Tensor]]
"""Where a group's units are: an axis, and (units, n) the indices along it of each unit."""


def permute(
    structure: ChannelStructure, params: Params, group: str, order: Sequence[int]
) -> dict[str, Tensor]:
    """``params`` with unit ``order[i]`` of a group in the place of its unit i."""
    (wanted,) = (each for each in structure.groups if each.name == group)
    return _permute(places(structure, wanted), params, torch.as_tensor(order))


def align(
    structure: ChannelStructure, reference: Params, params: Params, by: Collection[str]
) -> dict[str, Tensor]:
    """``params`` with the units of every group in the order in which they are most like ``reference``.

    Maximises <reference, params> over all orders by coordinate descent, a group at a time in depth order,
    each by the best assignment given the others, until no group changes. Such a descent ends where it began
    to lead: it begins both with the order as it is and with one found from the inputs on, where a group is
    matched by nothing that is not matched yet; what ends more alike is returned.

    Args:
        by: the tensors that the likeness is of: the parameters, not the statistics of batch norm.
    """
    where = {group.name: found for group in structure.groups if (found := places(structure, group))}
    as_it_is = _descend(where, reference, dict(params), by)
    from_inputs = _descend(where, reference, _from_inputs(where, reference, dict(params), by), by)
    return max(as_it_is, from_inputs, key=lambda found: _product(reference, found, by))


def _descend(
    where: Mapping[str, Places], reference: Params, params: dict[str, Tensor], by: Collection[str]
) -> dict[str, Tensor]:
    for _ in range(SWEEPS):
        changed = False
        for group in where.values():
            candidate = _matched(group, reference, params, by)
            # A layer that both takes and makes the group is quadratic in its order: the product decides.
            touched = {axis.tensor for axis, _ in group} & set(by)
            before, after = (_product(reference, each, touched) for each in (params, candidate))
            if after - before > 1e-9 * abs(before):
                params, changed = candidate, True
        if not changed:
            break
    return params


def _from_inputs(
    where: Mapping[str, Places], reference: Params, params: dict[str, Tensor], by: Collection[str]
) -> dict[str, Tensor]:
    waiting = dict.fromkeys(where)
    for name, group in where.items():
        del waiting[name]
        unsettled = {axis.tensor for other in waiting for axis, _ in where[other]}
        params = _matched(group, reference, params, set(by) - unsettled)
    return params


def check_same_function(
    model: nn.Module, in_shape: tuple[int, ...], params: Params, permuted: Params
) -> None:
    """Runs both on one input, as a model may hand channels on in ways that no table of groups shows.

    Raises:
        CutError: they differ.
    """
    x = torch.randn(8, *in_shape, generator=torch.Generator().manual_seed(0))
    model = copy_to(torch.device("cpu"), model).eval()
    logits = []
    for each in (params, permuted):
        model.load_state_dict(each)
        with torch.no_grad():
            logits.append(model(x))
    off = (logits[0] - logits[1]).abs().max() / logits[0].abs().max().clamp_min(1e-12)
    if not off < 1e-3:
        raise CutError(f"the model's channels cannot be reordered: that moves its logits by {off:.1g}")


def places(structure: ChannelStructure, group: ChannelGroup) -> Places:
    """Where the units of a group are; nowhere if there is one, or if they are not all used alike."""
    found: Places = []
    for axis in structure.axes:
        units: list[list[tuple[int, int]]] = [[] for _ in range(group.units)]
        for index, channel in enumerate(axis.channels):
            if channel is not None and channel[0] == group.name:
                run, unit = divmod(channel[1], group.units)
                units[unit].append((run, index))
        runs = {tuple(run for run, _ in sorted(unit)) for unit in units}
        if len(runs) > 1:
            return []
        if runs != {()}:
            found.append((axis, torch.tensor([[index for _, index in sorted(unit)] for unit in units])))
    return found


def _matched(
    group: Places, reference: Params, params: dict[str, Tensor], by: Collection[str]
) -> dict[str, Tensor]:
    """``params`` with one group in the order that is most like the reference's."""
    _, order = linear_sum_assignment(_likeness(group, reference, params, by), maximize=True)
    return params if (order[:-1] < order[1:]).all() else _permute(group, params, torch.as_tensor(order))


def _permute(group: Places, params: Params, order: Tensor) -> dict[str, Tensor]:
    moved = dict(params)
    for axis, indices in group:
        along = torch.arange(len(axis.channels))
        along[indices] = indices[order]
        moved[axis.tensor] = moved[axis.tensor].index_select(axis.dim, along)
    return moved


def _likeness(group: Places, reference: Params, params: Params, by: Collection[str]) -> Tensor:
    """(units, units): the inner product of each unit of the reference with each of the other network."""
    total = torch.zeros(len(group[0][1]), len(group[0][1]), dtype=torch.float64)
    for axis, indices in group:
        if axis.tensor in by:
            one, other = (
                each[axis.tensor].double().movedim(axis.dim, 0)[indices].flatten(1)
                for each in (reference, params)
            )
            total += one @ other.T
    return total


def _product(one: Params, other: Params, names: Collection[str]) -> float:
    return sum(float((one[name].double() * other[name].double()).sum()) for name in sorted(names))
