"""Check that an update can be merged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sheaf.core.types import Params
from sheaf.merges.average import cores_for


def misfit(theta: Params, params: Params, finite: bool = False) -> str | None:
    """Return why ``params`` cannot replace ``theta`` (a name, shape, type or value), or None if they can.

    Values must be finite unless training has left them unchanged, as in a constant buffer such as a mask.

    Args:
        theta: the parameters to replace.
        params: the new ones.
        finite: whether all values are known to be finite, see ``are_finite``.
    """
    if missing := [name for name in theta if name not in params]:
        return f"{missing[0]} is missing"
    if foreign := sorted(name for name in params if name not in theta):
        return f"{foreign[0]} is not a parameter of the model"
    with cores_for(theta):
        for name in sorted(params):  # the same message for a device's file and for tensors in memory
            value, expected = params[name], theta[name]
            if value.shape != expected.shape:
                return f"{name} has shape {tuple(value.shape)} instead of {tuple(expected.shape)}"
            if value.dtype != expected.dtype:
                return f"{name} is {value.dtype} instead of {expected.dtype}"
            if finite or not value.is_floating_point():
                continue
            if not _is_finite(value) and not _is_same(value, expected):
                return f"{name} has values that are not finite"
    return None


def are_finite(params: Params) -> bool:
    """Return whether all values are finite."""
    return all(_is_finite(value) for value in params.values() if value.is_floating_point())


def _is_finite(value: Tensor) -> bool:
    """Check the sum first: it takes a tenth of the time, and is finite only if all values are."""
    return math.isfinite(value.sum().item()) or bool(value.isfinite().all())


def _is_same(value: Tensor, expected: Tensor) -> bool:
    return not expected.is_meta and torch.allclose(value, expected, rtol=0, atol=0, equal_nan=True)
