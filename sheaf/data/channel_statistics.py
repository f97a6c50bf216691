"""Mean and standard deviation of the input channels."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # examples that are converted to float64 at a time
CHUNK_VALUES = CHUNK * 3 * 32 * 32  # fewer examples if these are larger: 100 MB of float64


def channel_statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, standard deviation) of each channel of ``inputs`` (N, C, H, W); uint8 is scaled to 0..1.

    A constant channel has the standard deviation 1, so that dividing by it is safe.
    """
    scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
    count = inputs.numel() // inputs.shape[1]
    chunks = torch.split(inputs, max(1, min(CHUNK, CHUNK_VALUES // inputs[0].numel())))
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(0) / count
    centre = mean.view(-1, 1, 1)
    # In place, so that one float64 copy of a chunk exists at a time.
    squares = [chunk.to(torch.float64, copy=True).sub_(centre).square_().sum((0, 2, 3)) for chunk in chunks]
    std = torch.stack(squares).sum(0).div(count).sqrt()
    std = torch.where(std > 0, std / scale, 1.0)
    return tuple((mean / scale).tolist()), tuple(std.tolist())
