"""The memory of the activations of one training step.

The only module that relies on ``torch.UntypedStorage._cdata``, an undocumented attribute: the address of the
C++ storage, which identifies a storage on the meta device, where ``data_ptr()`` is 0.
``tests/experiments/test_activation_bytes.py`` checks it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sheaf.models.flops import copy_to


def activation_bytes(model: nn.Module, in_shape: tuple[int, ...], batch: int) -> int:
    """Return the bytes that autograd keeps for the backward pass of one batch, without parameters.

    Args:
        model: any network; it stays unchanged and is not run on numbers.
        in_shape: (C, H, W) of one example.
        batch: the number of examples.
    """
    meta = copy_to(torch.device("meta"), model).train()
    parameters = {parameter.untyped_storage()._cdata for parameter in meta.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}  # keeps references, so that no address is used twice

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        meta(torch.zeros(batch, *in_shape, device="meta"))
    return sum(storage.nbytes() for storage in saved.values())
