"""The cloud's checks of a device's tensors: their size before the download, their content after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError, FleetError
from sheaf.core.recipe import Share
from sheaf.core.task import Task, Update
from sheaf.data.shared_samples import decode_shared
from sheaf.fleets.remote.messages import CHUNK, BlobHeader, DeviceInfo

HEADER_ALLOWANCE = 1 << 20
"""Bytes that the names and shapes in a tensor file may take."""


@dataclass(frozen=True)
class UpdateLimits:
    """Limits on the tensors of an update.

    Attributes:
        parameter_bytes: task -> maximum size of the parameters and statistics of its update, in bytes.
        shape: (C, H, W) of one sample.
        dtype: of a sample.
        classes: number of classes.
        bits: bits per channel from which images of more than 8 are scaled; see ``DataSettings``.
    """

    parameter_bytes: Callable[[Task], int]
    shape: tuple[int, int, int]
    dtype: torch.dtype
    classes: int
    bits: int | None

    def check_size(self, task: Task, blob: BlobHeader, device: DeviceInfo) -> None:
        """Check the size of an update before its download.

        Raises:
            FleetError: it exceeds the maximum, or the number of chunks does not fit the size.
        """
        if task.kind == "share":
            most = max_samples(task, device) * (math.prod(self.shape) * self.dtype.itemsize + 8)
            most += HEADER_ALLOWANCE
        elif task.kind in ("train", "choose", "collect", "summarize", "restat", "refit") and task.reply:
            most = self.parameter_bytes(task) + HEADER_ALLOWANCE
        else:
            most = 0
        if blob.size > most:
            raise FleetError(f"update of {blob.size / 1e6:.4g} MB exceeds the maximum of {most / 1e6:.4g} MB")
        if task.kind == "share" and len(blob.chunks) != math.ceil(blob.size / CHUNK):
            raise FleetError(f"update of {blob.size} bytes lists {len(blob.chunks)} chunks of {CHUNK} bytes")

    def check_tensors(self, task: Task, update: Update, device: DeviceInfo) -> Samples | None:
        """Check the tensors of a downloaded update, and return the samples of a ``share`` task.

        Raises:
            FleetError: they are not a tensor file, or are samples of a wrong shape, dtype, number or value.
        """
        assert update.blob is not None
        assert isinstance(update.blob.source, Path)
        try:
            with safetensors.safe_open(update.blob.source, "pt") as file:
                if task.kind != "share":
                    return None
                if not {"inputs", "labels"} <= set(file.keys()):
                    raise FleetError("shared tensors are not named inputs and labels")
                labels = file.get_tensor("labels")
        except (SafetensorError, OSError) as error:
            raise FleetError(f"update's tensors cannot be read: {error}") from error
        if labels.numel() > max_samples(task, device):  # before files are decoded
            raise FleetError(
                f"{labels.numel()} shared samples exceed the maximum of {max_samples(task, device)}"
            )
        try:
            inputs = decode_shared(update.blob, self.shape, self.bits).inputs
        except DataError as error:
            raise FleetError(str(error)) from error
        if tuple(inputs.shape[1:]) != self.shape or inputs.dtype != self.dtype:
            raise FleetError(
                f"shared samples are {tuple(inputs.shape[1:])} {inputs.dtype}, not {self.shape} {self.dtype}"
            )
        if labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
            raise FleetError(f"{len(inputs)} shared samples have labels {tuple(labels.shape)} {labels.dtype}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise FleetError(f"shared samples have labels outside of 0 to {self.classes - 1}")
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            raise FleetError("shared samples have values that are not finite")
        return Samples.of(inputs, labels)


def max_samples(task: Task, device: DeviceInfo) -> int:
    """Return the maximum number of samples in the update of a ``share`` task."""
    share, total = task.share or Share(), sum(device.counts)
    return min(math.ceil(share.fraction * total) + 1, share.count or total)
