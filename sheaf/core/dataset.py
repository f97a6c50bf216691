"""Examples in memory, and the dataset that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings

FileReader = Callable[[int, int], bytes]
"""(index of an example, limit in bytes) -> its encoded file, or no bytes if it has none within the limit."""


@dataclass(frozen=True)
class Samples:
    """A selection of N of the M examples in shared tensors.

    Many sites can select from the same ``inputs``; a selection takes memory only for its positions.

    Attributes:
        inputs: (M, C, H, W), uint8 for images, float32 for features such as log-mel spectrograms.
        targets: (M,) int64, the class of each input.
        positions: (N,) int64, the indices of the selected examples, in their order.
        read_file: reads the files of which ``inputs`` were decoded; None: there are none. A file may have
            changed since.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    read_file: FileReader | None = field(default=None, compare=False)

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor) -> Samples:
        """Select all examples of ``inputs``."""
        return cls(inputs, targets, torch.arange(len(inputs)))

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """Copy the parts, one after another, into new tensors."""
        return cls.of(
            torch.cat([part.inputs[part.positions] for part in parts]),
            torch.cat([part.labels for part in parts]),
        )

    def __len__(self) -> int:
        return self.positions.shape[0]  # ``len`` of a tensor takes three times as long

    @property
    def labels(self) -> Tensor:
        """The classes of the selected examples: (N,) int64."""
        return self.targets[self.positions]

    def select(self, index: Tensor) -> Samples:
        """Select among the N examples by int64 indices or a bool mask; the tensors stay shared."""
        return Samples(self.inputs, self.targets, self.positions[index], self.read_file)

    def counts(self, num_classes: int) -> Tensor:
        """Count the examples of each class: (K,) int64."""
        return torch.bincount(self.labels, minlength=num_classes)


@settings
class Sound:
    """Settings that turn a recording into a spectrogram.

    Attributes:
        rate: sampling rate in Hz, at least 1, to which recordings are resampled.
        seconds: positive duration to which recordings are trimmed or padded.
    """

    rate: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Attributes:
        name: the dataset's name in the settings.
        train: training examples, uint8 or float32.
        test: test examples of the same shape. No decision of a run uses them.
        classes: the K class names; a label is an index into them.
        mean: mean of each channel, after uint8 inputs are scaled to 0..1; the inputs are normalised by it.
        std: standard deviation of each channel, likewise.
        fingerprint: SHA-256 of all inputs and labels, for a result's provenance.
        sound: settings that turned recordings into inputs; None if the data are not sounds.
        bits: bits per channel from which images are scaled to 8; None if all files have at most 8.
        commit: hash of the commit that a dataset of the Hub was read at; None for others.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    sound: Sound | None = None
    bits: int | None = None
    commit: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one example: (C, H, W)."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width
