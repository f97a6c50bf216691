"""Mean and standard deviation of the input channels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sheaf.core.progress_bar import bar

PIECE = 2**20
"""Values that are counted at a time."""
CHUNK = 4096  # examples that are converted to float64 at a time
CHUNK_VALUES = CHUNK * 3 * 32 * 32  # fewer examples if these are larger: 100 MB of float64

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def channel_statistics(inputs: Tensor) -> Statistics:
    """Return (mean, standard deviation) of each channel of ``inputs`` (N, C, H, W); uint8 is scaled to 0..1.

    A constant channel has the standard deviation 1, so that dividing by it is safe.
    """
    return _of_bytes(inputs) if inputs.dtype == torch.uint8 else _of_features(inputs)


def _of_bytes(inputs: Tensor) -> Statistics:
    """Compute them from the number of each of the 256 values, exactly and in little memory."""
    counts = np.zeros((inputs.shape[1], 256), np.int64)
    with bar("computing the mean of the images", len(inputs)) as advance:
        for piece in torch.split(inputs, max(1, PIECE // inputs[0].numel())):
            for channel, of_channel in enumerate(counts):
                of_channel += np.bincount(piece[:, channel].numpy().ravel(), minlength=256)
            advance(len(piece))
    values = np.arange(256)
    means, deviations = [], []
    for of_channel in counts:
        count, total, squares = (int(of_channel @ values**power) for power in (0, 1, 2))
        means.append(total / count / 255)
        variance = (count * squares - total**2) / count**2
        deviations.append(math.sqrt(variance) / 255 if variance else 1.0)
    return tuple(means), tuple(deviations)


def _of_features(inputs: Tensor) -> Statistics:
    """Compute them in two passes over chunks in float64."""
    count = inputs.numel() // inputs.shape[1]
    chunks = torch.split(inputs, max(1, min(CHUNK, CHUNK_VALUES // inputs[0].numel())))
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(0) / count
    centre = mean.view(-1, 1, 1)
    # In place, so that one float64 copy of a chunk exists at a time.
    squares = [chunk.to(torch.float64, copy=True).sub_(centre).square_().sum((0, 2, 3)) for chunk in chunks]
    std = torch.stack(squares).sum(0).div(count).sqrt()
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())
