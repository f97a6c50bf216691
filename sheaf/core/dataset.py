"""Examples in memory, and the data set that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.settings import settings


@dataclass(frozen=True)
class Samples:
    """Examples in memory: shared tensors, and the positions in them that are meant.

    Any number of sites can hold parts of the same ``inputs``; a part costs its positions alone.

    Attributes:
        inputs: (M, C, H, W), uint8 for images, float32 for features such as log-mel spectrograms.
        targets: (M,) int64 class of each of ``inputs``.
        positions: (N,) int64, which of the M are meant, in this order.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor) -> Samples:
        """All of ``inputs``."""
        return cls(inputs, targets, torch.arange(len(inputs)))

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """The parts one after another, in memory of their own."""
        return cls.of(
            torch.cat([part.inputs[part.positions] for part in parts]),
            torch.cat([part.labels for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return self.targets[self.positions]

    def select(self, which: Tensor) -> Samples:
        """The examples at ``which`` (int64 indices or a bool mask over the N), sharing the same memory."""
        return Samples(self.inputs, self.targets, self.positions[which])

    def counts(self, num_classes: int) -> Tensor:
        """(K,) int64: examples of each class."""
        return torch.bincount(self.labels, minlength=num_classes)


@settings
class Sound:
    """How sounds become spectrograms: resampled to ``rate`` a second, cut or padded to ``seconds``."""

    rate: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Dataset:
    """What there is to learn, read and checked.

    Attributes:
        train, test: uint8 or float32 inputs of one shape. Test data decides nothing.
        classes: the K class names; a label is an index into them.
        mean, std: of each channel, after uint8 is scaled to 0..1. What normalises the inputs.
        fingerprint: SHA-256 of all inputs and labels, for a result's provenance.
        sound: how sounds became inputs; None for all else.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    sound: Sound | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one example."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width
