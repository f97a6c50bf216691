"""Order a recorded step of a stack so that each site's gradient is applied while it is in the core's cache.

A product (``bmm``) computes the gradient of a layer's weights for all sites, and the optimizer reads it at
the end of the step. By then the gradients of several sites have left the cache. Here the optimizer's step of
a site follows the site's product, and all sites use the same memory for their gradient. The bits stay the
same. ``python -m benchmarks.simulation run --only order`` compares both orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sheaf.training.operation import Operation, address

LEAST_BYTES = 2**20
"""Size of a gradient of all sites up to which it stays in the cache anyway."""

PRODUCT, SGD = torch.ops.aten.bmm.default, torch.ops.aten._fused_sgd_.default


def update_by_site(operations: Sequence[Operation], kept: Sequence[Tensor]) -> list[Operation]:
    """Return the operations of a step in the better order; any other operations as they are.

    Args:
        operations: all of a step.
        kept: tensors that are read after the step.
    """
    steps = [operation for operation in operations if operation.operator is SGD]
    if len(steps) != 1 or not all(each.is_view for each in operations[operations.index(steps[0]) + 1 :]):
        return list(operations)
    (step,) = steps
    reordered, by_site, others = list(operations), [], []
    for own in zip(*(each for each in step.args if each), strict=True):  # parameter, gradient, momentum
        product = product_of(own[1], operations, kept)
        if product is None or own[1].nbytes <= LEAST_BYTES:
            others.append(own)
            continue
        reordered.remove(product)
        (left, right), shared = product.args, own[1][:1]
        for site in (slice(number, number + 1) for number in range(len(own[1]))):
            by_site.append(replace(product, args=(left[site], right[site]), results=shared))
            pieces = ([own[0].detach()[site]], [shared], *([each[site]] for each in own[2:]))
            by_site.append(replace(step, args=_filled(pieces)))
    at = reordered.index(step)
    rest = [replace(step, args=_filled(tuple(map(list, zip(*others, strict=True)))))] if others else []
    return [*reordered[:at], *by_site, *rest, *reordered[at + 1 :]]


def product_of(gradient: Tensor, operations: Sequence[Operation], kept: Sequence[Tensor]) -> Operation | None:
    """Return the product that computes a gradient, if only the optimizer reads it afterwards."""
    if any(address(gradient) == address(each) for each in kept):
        return None
    users = [each for each in operations if not each.is_view and each.touches(gradient)]
    if [each.operator for each in users] != [PRODUCT, SGD]:
        return None
    product = users[0]
    later = operations[operations.index(product) + 1 :]
    changed = any(each.writes_into_arguments and any(map(each.touches, product.args)) for each in later)
    same_layout = (product.results.shape, product.results.stride()) == (gradient.shape, gradient.stride())
    return product if same_layout and not changed else None


def _filled(lists: tuple[list[Tensor], ...]) -> tuple[list[Tensor], ...]:
    """Return the optimizer's three lists: parameters, gradients and, empty without momentum, momenta."""
    return lists if len(lists) == 3 else (*lists, [])
