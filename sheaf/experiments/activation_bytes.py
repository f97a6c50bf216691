"""The memory of one training step, in particular of its activations.

The only module that relies on ``torch.UntypedStorage._cdata``, an undocumented attribute: the address of the
C++ storage, which identifies a storage on the meta device, where ``data_ptr()`` is 0.
``tests/experiments/test_activation_bytes.py`` checks it.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe
from sheaf.models.flops import copy_to
from sheaf.training.network import Network


def training_bytes(network: Network, cut: Cut | None, recipe: Recipe) -> int:
    """Return the bytes of parameters, gradients, optimizer state and the activations of one batch."""
    model = network.of(cut)
    parameters = sum(value.numel() for value in model.parameters())
    moments = {"sgd": 1, "adam": 2, "adamw": 2}[recipe.optimizer]
    return 4 * parameters * (2 + moments) + activation_bytes(model, network.in_shape, recipe.batch_size)


def activation_bytes(model: nn.Module, in_shape: tuple[int, ...], batch: int) -> int:
    """Return the bytes that autograd keeps for the backward pass of one batch, without parameters.

    Args:
        model: any network; it stays unchanged. It runs on the meta device, or, if it reads values, on zeros.
        in_shape: (C, H, W) of one example.
        batch: the number of examples.
    """
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return _activation_bytes_on(torch.device("meta"), model, in_shape, batch)
    return _activation_bytes_on(torch.device("cpu"), model, in_shape, batch)


def _activation_bytes_on(
    device: torch.device, model: nn.Module, in_shape: tuple[int, ...], batch: int
) -> int:
    model = copy_to(device, model).train()
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}  # keeps references, so that no address is used twice

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage
        return tensor

    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        model(torch.zeros(batch, *in_shape, device=device))
    return sum(storage.nbytes() for storage in saved.values())
