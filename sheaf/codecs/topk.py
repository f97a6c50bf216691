"""The largest values of each tensor with their positions; the others are added to the next difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.coding import Layout
from sheaf.core.settings import settings


@settings
class TopK:
    """The k values of largest magnitude of each matrix, eight bytes each.

    Sparsified SGD with Memory. Stich, Cordonnier, Jaggi. NeurIPS 2018. arXiv:1809.07599, algorithm 1: the
    memory is the device's encoding error. A difference to the receiver's model contains by itself the values
    that earlier downloads left out.

    Attributes:
        fraction: of a matrix's values that are sent, at least one; above 0 and at most 0.5, from which on
            float32 takes no more bytes.
    """

    feedback: ClassVar[bool] = True

    fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05

    def layout(self, rows: int, columns: int) -> Layout:
        """Return the layout of an encoded matrix."""
        count = self._count(rows * columns)
        return {"i": (torch.int32, (count,)), "v": (torch.float32, (count,))}

    def encode(self, values: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """Encode a (rows, columns) matrix."""
        flat = values.reshape(-1)
        largest = flat.abs().topk(self._count(len(flat)), sorted=False).indices.sort().values
        return {"i": largest.to(torch.int32), "v": flat[largest]}

    def decode(self, parts: Mapping[str, Tensor], rows: int, columns: int) -> Tensor:
        """Decode a (rows, columns) matrix.

        Raises:
            ValueError: the positions do not ascend, or exceed the matrix.
        """
        positions, total = parts["i"].long(), rows * columns
        if positions[0] < 0 or positions[-1] >= total or not (positions.diff() > 0).all():
            raise ValueError(f"positions do not ascend from 0 to {total - 1}")
        decoded = torch.zeros(total)
        decoded[positions] = parts["v"]
        return decoded.view(rows, columns)

    def _count(self, total: int) -> int:
        return max(1, round(self.fraction * total))
