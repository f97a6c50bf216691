"""Mean and standard deviation of the input channels."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # examples that are converted to float64 at a time: bounds the memory


def channel_statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, standard deviation) of each channel of ``inputs`` (N, C, H, W); uint8 is scaled to 0..1.

    A constant channel has the standard deviation 1, so that dividing by it is safe.
    """
    scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
    count = inputs.numel() // inputs.shape[1]
    chunks = [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(0) / count
    squares = [(chunk.double() - mean.view(-1, 1, 1)).square().sum(dim=(0, 2, 3)) for chunk in chunks]
    std = torch.stack(squares).sum(0).div(count).sqrt()
    std = torch.where(std > 0, std / scale, 1.0)
    return tuple((mean / scale).tolist()), tuple(std.tolist())
