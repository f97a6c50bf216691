"""The activations of a training step, and the undocumented attribute of torch that counts them.

If ``_cdata`` changes, only ``sheaf/experiments/activation_bytes.py`` has to change.
"""

from __future__ import annotations

import torch
from torch import nn

from sheaf.experiments.activation_bytes import activation_bytes


def test_a_storage_has_an_address_of_its_own_on_the_meta_device() -> None:
    a, b = (torch.zeros(2, 3, device="meta") for _ in range(2))
    assert a.untyped_storage()._cdata == a.view(6).untyped_storage()._cdata
    assert a.untyped_storage()._cdata != b.untyped_storage()._cdata
    assert a.untyped_storage().nbytes() == 4 * 6


def test_activations_are_those_that_autograd_saves() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    # The flattened input (64) for the first weight gradient; the output of the ReLU (32), saved twice.
    assert activation_bytes(model, (1, 8, 8), 5) == 4 * 5 * (64 + 32)
    assert all(parameter.device == torch.device("cpu") for parameter in model.parameters())


def test_a_frozen_layer_saves_no_input() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    model[1].requires_grad_(False)
    assert activation_bytes(model, (1, 8, 8), 5) == 4 * 5 * 32


class ReadsValues(nn.Sequential):
    """As fake quantisation does with its switches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() == 0 else x


def test_a_model_that_reads_values_runs_on_zeros() -> None:
    layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    draws = torch.random.get_rng_state()
    expected = activation_bytes(nn.Sequential(*layers), (1, 8, 8), 5)
    assert activation_bytes(ReadsValues(*layers), (1, 8, 8), 5) == expected
    assert torch.equal(torch.random.get_rng_state(), draws)
