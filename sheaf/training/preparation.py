"""Where training computes, and in what form inputs and models get there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sheaf.core.errors import SettingError
from sheaf.models.memory_layout import to_layout, uses_channels_last


@dataclass(frozen=True)
class Preparation:
    """Moves inputs to the device and normalises them.

    Attributes:
        mean: of each channel, taken off after uint8 inputs are scaled to 0..1.
        std: of each channel, which the difference is divided by.
        device: where the network computes.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return (N, C, H, W) uint8 or float32 inputs as normalised float32 on the device."""
        mean, std = self._of_bytes if inputs.dtype == torch.uint8 else self._of_features
        x = inputs.to(self.device, torch.float32)
        # In place, so that one float32 copy of a mini-batch exists.
        return (x - mean if x is inputs else x.sub_(mean)).div_(std)

    @cached_property
    def _of_features(self) -> tuple[Tensor, Tensor]:
        mean, std = torch.tensor([self.mean, self.std], device=self.device)[..., None, None]
        return mean, std

    @cached_property
    def _of_bytes(self) -> tuple[Tensor, Tensor]:
        mean, std = self._of_features
        return mean * 255, std * 255


def move_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Move ``model`` to the device in place, in the memory layout in which it is fastest."""
    if uses_channels_last(model):
        to_layout(model, channels_last=True)
    return model.to(device)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA if available, then Apple's MPS, then the CPU.

    Raises:
        SettingError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_available in available.items() if is_available)
    if not available[name]:
        names = ", ".join(kind for kind, is_available in available.items() if is_available)
        raise SettingError(
            f"fleet.device = {name!r}: torch finds no such device on this machine; allowed: auto, {names}"
        )
    return torch.device(name)
