"""Values rounded at random to 255 levels, with a scale for each row: a quarter of the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sheaf.core.coding import Layout
from sheaf.core.settings import settings

LEVELS = 127
"""Levels on each side of zero."""


@settings
class Int8:
    """q = floor(x / s + u) with u uniform in [0, 1) and s the largest |x| of the row over 127: E[q s] = x.

    QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding. Alistarh, Grubic, Li, Tomioka,
    Vojnovic. NeurIPS 2017. arXiv:1610.02132, section 3.1, with the largest absolute value in place of the
    norm. The scale is a bfloat16, rounded up. An error is below the scale.
    """

    feedback: ClassVar[bool] = False

    def layout(self, rows: int, columns: int) -> Layout:
        """Return the layout of an encoded matrix."""
        return {"q": (torch.int8, (rows, columns)), "s": (torch.bfloat16, (rows,))}

    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Encode a (rows, columns) matrix. A row with a value that is not finite gets such a scale."""
        scale = _rounded_up(values.abs().amax(1) / LEVELS)
        levels = values / scale.float()[:, None]
        levels += torch.rand(values.shape, generator=draws)
        levels = levels.floor_().clamp_(-LEVELS, LEVELS).nan_to_num_(0.0)  # 0 / 0 in a row of zeros
        return {"q": levels.to(torch.int8), "s": scale}

    def decode(self, parts: Mapping[str, Tensor], rows: int, columns: int) -> Tensor:
        """Decode a (rows, columns) matrix."""
        return parts["q"].float() * parts["s"].float()[:, None]


def _rounded_up(values: Tensor) -> Tensor:
    """Round non-negative float32 values to bfloat16, upwards."""
    nearest = values.bfloat16()
    bits = nearest.view(torch.int16) + (nearest.float() < values).to(torch.int16)
    return bits.view(torch.bfloat16)
