"""Augmentations: tensor operations on whole mini-batches, on the training device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def flip(x: Tensor, draws: torch.Generator) -> Tensor:
    """Mirror half of the (N, C, H, W) images left to right."""
    mirrored = torch.rand(len(x), generator=draws).lt(0.5).to(x.device)
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def crop(x: Tensor, draws: torch.Generator) -> Tensor:
    """Shift each of the (N, C, H, W) images by up to an eighth of its side, filling with zeros."""
    n, _, height, width = x.shape
    pad_h, pad_w = height // 8, width // 8
    top = torch.randint(2 * pad_h + 1, (n, 1), generator=draws).to(x.device)
    left = torch.randint(2 * pad_w + 1, (n, 1), generator=draws).to(x.device)
    rows = top + torch.arange(height, device=x.device)
    columns = left + torch.arange(width, device=x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    padded = F.pad(x, (pad_w, pad_w, pad_h, pad_h)).permute(0, 2, 3, 1)
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS = {"flip": flip, "crop": crop}
