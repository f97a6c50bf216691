"""Samples on the GPU that trains on them: all of them, copied there once; batches are picked there."""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

SHARE = 0.5
"""Of a GPU's free memory, samples take so much at most; more of them stay where they are."""

_COPIES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Tensor -> its copy on the GPU, None where it has no room there; gone with the tensor."""

_ASKING = threading.Lock()


def pick(values: Tensor, positions: Tensor, device: torch.device) -> Tensor:
    """(B, ...): of (N, ...) values those at (B) positions; on ``device`` if that is a GPU with room for all.

    Whoever asks for the same tensor, be it a thousand edges of one dataset, picks from the same copy.
    """
    lying = _resident(values, device) if device.type == "cuda" else values
    return lying.index_select(0, positions.to(lying.device))


def _resident(values: Tensor, device: torch.device) -> Tensor:
    with _ASKING:
        if values not in _COPIES:
            free, _ = torch.cuda.mem_get_info(device)
            _COPIES[values] = values.to(device) if values.nbytes <= SHARE * free else None
        copy: Tensor | None = _COPIES[values]
    return values if copy is None else copy
