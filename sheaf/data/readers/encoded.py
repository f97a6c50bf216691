"""What every reader returns: labels, and encoded files that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sheaf.core.errors import DataError

Ints: TypeAlias = npt.NDArray[np.int64]
Kind = Literal["image", "sound"]


@dataclass(frozen=True)
class Part:
    """The training or the test part, before anything is decoded.

    Attributes:
        labels: (N,) int64.
        items: given increasing positions, yields for each where it lies, for messages, and its
            encoded bytes.
    """

    labels: Ints
    items: Callable[[Ints], Iterator[tuple[str, bytes]]]

    def select(self, positions: Ints) -> Part:
        """The examples at increasing ``positions``."""
        return Part(self.labels[positions], lambda which: self.items(positions[which]))


@dataclass(frozen=True)
class Encoded:
    """A set before anything is decoded: its labels are known, so a part of it is had for little.

    Attributes:
        classes: the K class names; labels are below K.
        mean, std: what is usual for a set that sheaf knows; None means computed.
    """

    kind: Kind
    train: Part
    test: Part
    classes: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def check_classes(name: str, encoded: Encoded) -> None:
    """Every class must have something to train and to test on.

    Raises:
        DataError: naming the classes that have not.
    """
    counts = {
        part: np.bincount(labels, minlength=len(encoded.classes))
        for part, labels in (("train", encoded.train.labels), ("test", encoded.test.labels))
    }
    for part in ("train", "test"):
        empty = [encoded.classes[i] for i in np.flatnonzero(counts[part] == 0)]
        if empty:
            raise DataError(f"{name}: the {part} part has no {encoded.kind} of class {some(empty)}")


def take_first(labels: Ints, limit: int | None) -> Ints:
    """Positions of at most ``limit`` examples: of each class the first, as evenly as there are any.

    Returns:
        increasing positions.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    rank = np.empty_like(labels)
    rank[by_class] = np.concatenate([np.arange(count) for count in counts])
    return np.sort(np.lexsort((labels, rank))[:limit])


def some(names: Iterable[Any], most: int = 5) -> str:
    """``'a', 'b' and 7 more``: as many names as a line bears."""
    names = list(names)
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
