"""The return type of every reader: labels in memory, and encoded files that are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sheaf.core.errors import DataError

Ints: TypeAlias = npt.NDArray[np.int64]
Kind = Literal["image", "sound"]


@dataclass(frozen=True)
class EncodedSplit:
    """The training or the test split of a dataset before decoding.

    Attributes:
        labels: (N,) int64 class indices.
        items: takes increasing positions below N and yields for each (location, content): where the example
            comes from, for error messages, and its encoded bytes.
        paths: the files of the N examples; None: they are not in files of their own.
    """

    labels: Ints
    items: Callable[[Ints], Iterator[tuple[str, bytes]]]
    paths: Sequence[Path] | None = None

    def select(self, positions: Ints) -> EncodedSplit:
        """Return the examples at increasing ``positions``; no file is read."""
        paths = self.paths and [self.paths[position] for position in positions.tolist()]
        return EncodedSplit(self.labels[positions], lambda inner: self.items(positions[inner]), paths)


@dataclass(frozen=True)
class Encoded:
    """A dataset before decoding.

    Attributes:
        kind: of all its files.
        train: the training split.
        test: the test split.
        classes: the K class names; labels are indices into them.
        mean: the published mean of each channel, with images scaled to 0..1; None: to be computed.
        std: the published standard deviation, likewise.
        split_without: takes locations of examples and returns the dataset that results if they are left out
            before the others are split; None if the data define the splits.
    """

    kind: Kind
    train: EncodedSplit
    test: EncodedSplit
    classes: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    split_without: Callable[[frozenset[str]], Encoded] | None = None


def check_classes(name: str, encoded: Encoded) -> None:
    """Check that each split has an example of every class. There may be no training split.

    Raises:
        DataError: a class has none.
    """
    for split, labels in (("train", encoded.train.labels), ("test", encoded.test.labels)):
        counts = np.bincount(labels, minlength=len(encoded.classes))
        empty = [encoded.classes[label] for label in np.flatnonzero(counts == 0)]
        if empty and (len(labels) or split == "test"):
            raise DataError(
                f"{name}: the {split} split has no {encoded.kind} of class {abbreviate(empty)}; "
                "add one to the split, or two files to a class that data.test_share splits"
            )


def abbreviate(names: Iterable[Any], limit: int = 5) -> str:
    """Return at most ``limit`` quoted names and the number of the others: ``'a', 'b' and 7 more``."""
    names = list(names)
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
