"""Fuse SGD's step into the product that computes a stack's gradient: one pass over the weights.

Plain SGD takes weights - rate x inputs^T x errors. The product and the optimizer's step by themselves write
the gradient and read it again. Fused, the difference is rounded once instead of twice, so the bits are others
than those of the operations. ``python -m benchmarks.simulation run --only order`` compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sheaf.training.operation import Operation
from sheaf.training.update_by_site import SGD, product_of

FUSED = torch.ops.aten.baddbmm_.default

PLAIN = {"weight_decay": 0.0, "momentum": 0.0, "maximize": False, "grad_scale": None, "found_inf": None}
"""Arguments of SGD's kernel in a plain step."""


def fuse_updates(operations: Sequence[Operation], kept: Sequence[Tensor]) -> list[Operation]:
    """Return the operations of a step with fused updates; those of any other step as they are.

    Args:
        operations: all of a step.
        kept: tensors that are read after the step.
    """
    steps = [operation for operation in operations if operation.operator is SGD]
    if len(steps) != 1 or not _is_plain(steps[0]):
        return list(operations)
    (step,) = steps
    fused, removed, others = [], [], []
    for parameter, gradient in zip(*step.args[:2], strict=True):
        product = product_of(gradient, operations, kept)
        if product is None:
            others.append((parameter, gradient))
            continue
        removed.append(product)
        weights, rate = parameter.detach(), step.kwargs["lr"]
        fused.append(Operation(FUSED, (weights, *product.args), {"beta": 1, "alpha": -rate}, weights))
    rest = [replace(step, args=(*map(list, zip(*others, strict=True)), []))] if others else []
    at = operations.index(step)
    return [*(each for each in operations[:at] if each not in removed), *fused, *rest, *operations[at + 1 :]]


def _is_plain(step: Operation) -> bool:
    """Return whether a step of SGD only subtracts the gradient times a fixed rate."""
    plain = all(step.kwargs.get(name, value) == value for name, value in PLAIN.items())
    return plain and isinstance(step.kwargs["lr"], float) and not step.args[2]
