"""Values rounded to bfloat16: half of the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sheaf.core.coding import Layout
from sheaf.core.settings import settings


@settings
class Bfloat16:
    """Two bytes for each value, rounded to the nearest: a relative error of at most 2^-9."""

    feedback: ClassVar[bool] = False

    def layout(self, rows: int, columns: int) -> Layout:
        """Return the layout of an encoded matrix."""
        return {"v": (torch.bfloat16, (rows, columns))}

    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Encode a (rows, columns) matrix."""
        return {"v": values.bfloat16()}

    def decode(self, parts: Mapping[str, Tensor], rows: int, columns: int) -> Tensor:
        """Decode a (rows, columns) matrix."""
        return parts["v"].float()
