"""Merge coordinate by coordinate: a function of the sorted values of all edges (median, trimmed mean)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sheaf.core.task import Update
from sheaf.core.types import Params

ENTRIES = 2**22
"""Entries held at a time, over all updates: 32 MiB in float64."""


def coordinatewise(
    theta: Params, updates: Sequence[Update], reduce: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return ``reduce`` of every coordinate's values, sorted over the M updates.

    Reads some rows of one tensor from all updates at a time, never a whole model. Integer buffers are
    those of the first site.

    Args:
        reduce: (M, ...) float64, ascending along the first dimension -> (...).

    Raises:
        ValueError: there is nothing to merge.
    """
    if not updates:
        raise ValueError("a merge needs at least one update")
    merged = {}
    for name, value in theta.items():
        rows = len(value) if value.dim() else 1
        if not value.is_floating_point():
            merged[name] = updates[0].rows(name, 0, rows)
            continue
        together = max(1, ENTRIES * rows // max(1, value.numel() * len(updates)))
        pieces = []
        for start in range(0, rows, together):
            rows_of = [update.rows(name, start, start + together).double() for update in updates]
            pieces.append(reduce(torch.stack(rows_of).sort(0).values).to(value.dtype))
        merged[name] = torch.cat(pieces) if value.dim() else pieces[0]
    return merged
