"""A cache of samples on the GPU: all are copied there once, and mini-batches are gathered there."""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

FRACTION = 0.5
"""The fraction of the GPU's free memory that one tensor may take; a larger one stays on the CPU."""

_COPIES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Tensor -> its copy on the GPU, None where it is too large. An entry is dropped with its tensor."""

_LOCK = threading.Lock()


def pick(values: Tensor, positions: Tensor, device: torch.device) -> Tensor:
    """Return the (N, ...) values at (B,) positions, on ``device`` if that is a GPU with room for all.

    All sites that hold positions in the same tensor use one copy.
    """
    source = _cached(values, device) if device.type == "cuda" else values
    return source.index_select(0, positions.to(source.device))


def _cached(values: Tensor, device: torch.device) -> Tensor:
    with _LOCK:
        if values not in _COPIES:
            free, _ = torch.cuda.mem_get_info(device)
            _COPIES[values] = values.to(device) if values.nbytes <= FRACTION * free else None
        copy: Tensor | None = _COPIES[values]
    return values if copy is None else copy
