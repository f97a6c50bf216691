"""Check a structure on random numbers: a sub-model among zeros, and two bound sub-models that are not zero.

In float64 a difference in rounding stays far below a difference in the function. A model that converts its
inputs to float32 by itself is checked in float32.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterable, Mapping
from math import prod

import torch
from torch import Tensor, nn

from sheaf.core.errors import CutError, first_line
from sheaf.core.types import Params
from sheaf.models.checkpoints import load_state
from sheaf.submodels.structure import ChannelStructure
from sheaf.submodels.submodel import SubModel

logger = logging.getLogger("sheaf")

EXACT = 1e-6
"""Largest binding error, as a fraction of the logits' spread, that counts as rounding."""

ROUNDING = {torch.float64: EXACT, torch.float32: 1e-3}
"""The same for each type in which a model may be checked; errors below it are returned as 0."""

WIDEST = 16
"""Largest number of independent channels in each of two sub-models: their number does not change an error's
cause."""

MISPLACED = 1e-2
"""Smallest error of a single sub-model among zeros that shows a wrong structure."""


def check_among_zeros(structure: ChannelStructure) -> None:
    """Check that a random sub-model computes the same logits alone and inside a network of zeros.

    In the whole network the weights from all other channels to the sub-model's are zeros. So an operation
    that moves channels unseen by the graph, or is not zero at zero, changes the logits. Group normalisation
    mixes the channels of a group by definition; both networks run without it.

    Raises:
        CutError: the logits differ.
    """
    problem = ""
    for dtype in (torch.float32, torch.float64):  # a deep, narrow sub-model can differ by float32 rounding
        try:
            off = _error_in(dtype, structure, parts=1, shared=(), group_norm=False)
        except (RuntimeError, TypeError) as error:  # the model converts its inputs to the other type
            problem = problem or f"a sub-model does not run on random numbers: {first_line(error)}"
            continue
        if off < MISPLACED:
            return
        problem = f"a sub-model's logits inside the network are off by {off:.1g} of their spread"
    raise CutError(problem)


def binding_error(structure: ChannelStructure, shared: Collection[str] = ()) -> float:
    """Return how much the logits of two sub-models change when they are bound.

    The sub-models hold disjoint channels and classes, and are placed into a network of zeros. The error is
    the largest difference between a bound logit and the sub-model's own, divided by the standard deviation
    of its own logits; 0 if it is within rounding. Stored in ``structure.binding_errors``.

    Args:
        structure: of the model.
        shared: the names of the groups whose channels both sub-models hold whole, with equal parameters.
    """
    key = frozenset(shared)
    if key not in structure.binding_errors:
        try:
            off = _error_in(torch.float64, structure, parts=2, shared=key, group_norm=True)
        except (RuntimeError, TypeError):  # the model converts its inputs to float32
            off = _error_in(torch.float32, structure, parts=2, shared=key, group_norm=True)
        structure.binding_errors[key] = off
    return structure.binding_errors[key]


def check_binding(structure: ChannelStructure, shared: Collection[str], exact: bool) -> None:
    """Check that sub-models with disjoint channels can be bound without changing their logits.

    A model without layers that mix channels passes, even if the sites' training of the shared groups makes
    its bound model inexact.

    Args:
        structure: of the model.
        shared: the names of the groups that all sites hold whole.
        exact: whether to refuse a model for which this is not so; otherwise the error is logged, once.

    Raises:
        CutError: it changes them, and ``exact`` is set.
    """
    first = not structure.binding_errors
    off = binding_error(structure)
    if off > EXACT and shared:
        off = min(off, binding_error(structure, shared))
    if off <= EXACT:
        return
    cause = f"{', '.join(structure.mixers) or 'a layer'} may mix the channels of several sub-models"
    error = f"binding is not exact: bound logits are off by {off:.2g} of their spread; {cause}"
    if exact:
        raise CutError(
            f"{error}; replace the layer (BatchNorm2d treats every channel alone), use heterofl or fedrolex, "
            "or accept the error with method.cut.exact = false"
        )
    if first:
        logger.info(error)


def _error_in(
    dtype: torch.dtype, structure: ChannelStructure, parts: int, shared: Collection[str], group_norm: bool
) -> float:
    """Return the largest error of the logits of sub-models that are placed into zeros.

    One sub-model is placed into the whole network, two into the network of their channels: that is smaller,
    and ``check_among_zeros`` has shown that the other channels, all zero, do not matter.

    Args:
        dtype: the type of parameters and inputs.
        structure: of the model.
        parts: the number of sub-models, with disjoint channels: 1 or 2.
        shared: the names of the groups that all of them hold whole.
        group_norm: whether group normalisations run.
    """
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    groups = [group for group in structure.groups if group.name not in shared]
    windows = {group.name: _windows(group.units, parts, draw) for group in groups}
    classes = _windows(structure.num_classes, parts, draw)

    def submodel_of(parts: Iterable[int]) -> SubModel:
        kept = {
            group.name: group.channels(unit for part in parts for unit in windows[group.name][part])
            for group in groups
        }
        return structure.submodel(structure.cut(kept, [number for part in parts for number in classes[part]]))

    submodels = [submodel_of([part]) for part in range(parts)]
    around = submodel_of(range(parts)) if parts > 1 else structure.submodel(structure.cut())
    x = torch.randn(4, *structure.in_shape, generator=generator, dtype=dtype)
    state = structure.submodel(structure.cut()).zeros(dtype)
    for submodel in submodels:
        submodel.place(state, _random_params(submodel.zeros(dtype), generator))
    bound = _logits(around, state, x, group_norm)
    own = torch.cat([_logits(submodel, state, x, group_norm) for submodel in submodels], 1)
    columns = [around.classes.index(number) for submodel in submodels for number in submodel.classes]
    spread = own.std() if parts > 1 else (own - own.mean(0)).std()
    off = ((bound[:, columns] - own).abs().max() / spread).item()
    return off if not off <= ROUNDING[dtype] else 0.0


def _windows(count: int, parts: int, draw: random.Random) -> list[list[int]]:
    """Draw disjoint windows, side by side, over a third to a half of ``range(count)`` each.

    Those of two groups rarely agree. Two windows have at most ``WIDEST`` channels each; a single channel is
    in both.
    """
    start, length = draw.randrange(count), draw.randint(max(1, count // 3), max(1, count // 2))
    if parts > 1:
        length = min(length, draw.randint(WIDEST // 2, WIDEST))
    return [[(start + part * length + step) % count for step in range(length)] for part in range(parts)]


def _random_params(zeros: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw parameters that keep the scale of signals from layer to layer, and non-trivial statistics."""
    params = {}
    for name, value in zeros.items():
        if not value.is_floating_point():
            params[name] = value
        elif value.dim() > 1:
            fan_in = prod(value.shape[1:])
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            params[name] = drawn.mul_((2 / fan_in) ** 0.5)
        elif name.endswith(("running_var", "weight")):
            params[name] = torch.rand(value.shape, generator=generator, dtype=value.dtype).add_(0.5)
        else:
            params[name] = torch.randn(value.shape, generator=generator, dtype=value.dtype).mul_(0.1)
    return params


def _logits(submodel: SubModel, state: Params, x: Tensor, group_norm: bool) -> Tensor:
    """Return the logits of a sub-model with its slices of ``state``."""
    model = submodel.module()
    load_state(model, submodel.take(state), assign=True)
    model.to(x.dtype)  # buffers that are not in the state_dict
    for layer in model.modules():
        if isinstance(layer, nn.GroupNorm) and not group_norm:
            layer.register_forward_hook(lambda _, inputs, __: inputs[0])
    with torch.no_grad():
        logits: Tensor = model.eval()(x)
    return logits
