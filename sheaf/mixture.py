"""Between two models of one shape."""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.types import Params


def mixture(own: Params, received: Params, a: float) -> dict[str, Tensor]:
    """(1 - a) own + a received for floating tensors; integer buffers are those of ``received``.

    The ends are exact: a = 0 gives ``own`` and a = 1 ``received``, bit for bit.
    """
    if a == 0:
        return dict(own)
    return {
        name: torch.lerp(own[name], value, a) if value.is_floating_point() and a != 1 else value
        for name, value in received.items()
    }
