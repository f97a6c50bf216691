"""Parameters as they are: whole and exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sheaf.core.coding import Layout
from sheaf.core.settings import settings


@settings
class Float32:
    """Four bytes for each value, without differences: messages and bits are those without a codec."""

    feedback: ClassVar[bool] = False

    def layout(self, rows: int, columns: int) -> Layout:
        """Return the layout of an encoded matrix."""
        return {"v": (torch.float32, (rows, columns))}

    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Encode a (rows, columns) matrix."""
        return {"v": values}

    def decode(self, parts: Mapping[str, Tensor], rows: int, columns: int) -> Tensor:
        """Decode a (rows, columns) matrix."""
        return parts["v"]
