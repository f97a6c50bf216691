"""What the partitions share: names for edges, classes by name, fair sizes of whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.errors import PartitionError, nearest
from sheaf.core.types import check_edge_name

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Share: TypeAlias = Annotated[float, Field(gt=0)]
ClassList: TypeAlias = tuple[int | str, ...]
Edges: TypeAlias = Count | tuple[ClassList, ...] | dict[str, ClassList]


def edge_names(count: int) -> list[str]:
    """``edge-1`` and so on; from ten on with leading zeros, so that they sort as they count."""
    return [f"edge-{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def equal_or(sizes: tuple[float, ...] | None, count: int) -> tuple[float, ...]:
    """``sizes``, or equal ones where none are set.

    Raises:
        PartitionError: there are not as many as edges.
    """
    if sizes is not None and len(sizes) != count:
        raise PartitionError(f"partition.sizes has {len(sizes)} values for {count} edges")
    return sizes or (1.0,) * count


def owned_classes(
    edges: Edges, classes: Sequence[str], sizes: tuple[float, ...] | None = None
) -> dict[str, list[int]]:
    """Edge -> the numbers of its classes.

    Args:
        edges: a number cuts the classes, in their order, into so many runs; a list gives each
            edge's classes, a table also its name. A class is given by number or by name.
        classes: the K names.
        sizes: how long the runs are; unset: as equal as can be, the first ones the longer.

    Raises:
        PartitionError: an edge's name or a class cannot be, or a class is on no edge.
    """
    if isinstance(edges, int):
        runs = apportion(len(classes), equal_or(sizes, edges))
        if 0 in runs:
            raise PartitionError(f"{len(classes)} classes do not give each of {edges} edges one")
        cuts = np.split(np.arange(len(classes)), np.cumsum(runs)[:-1])
        return {name: run.tolist() for name, run in zip(edge_names(edges), cuts, strict=True)}
    if not isinstance(edges, Mapping):
        edges = dict(zip(edge_names(len(edges)), edges, strict=True))
    owned = {name: _numbers(name, given, classes) for name, given in edges.items()}
    missing = sorted(set(range(len(classes))) - {number for own in owned.values() for number in own})
    if missing:
        listed = ", ".join(repr(classes[number]) for number in missing[:5])
        raise PartitionError(
            f"partition.edges puts {len(missing)} of {len(classes)} classes on no edge: {listed}"
            + (" ..." if len(missing) > 5 else "")
        )
    return owned


def _numbers(edge: str, given: ClassList, classes: Sequence[str]) -> list[int]:
    check_edge_name(edge)
    numbers = [_number(edge, one, classes) for one in given]
    if twice := [number for number in set(numbers) if numbers.count(number) > 1]:
        raise PartitionError(f"partition.edges gives {edge} class {classes[twice[0]]!r} twice")
    return numbers


def _number(edge: str, one: int | str, classes: Sequence[str]) -> int:
    if isinstance(one, str) and one in classes:
        return list(classes).index(one)
    if isinstance(one, int) and 0 <= one < len(classes):
        return one
    hint = nearest(one, classes) if isinstance(one, str) else f"; they count from 0 to {len(classes) - 1}"
    raise PartitionError(f"partition.edges gives {edge} class {one!r}, which is not in the data{hint}")


def shuffled_classes(labels: Tensor, classes: Sequence[str], rng: np.random.Generator) -> list[Ints]:
    """Of each class, the positions of its images in random order."""
    numbers = labels.numpy()
    return [rng.permutation(np.flatnonzero(numbers == number)) for number in range(len(classes))]


def apportion(total: int, sizes: Sequence[float] | Floats, turn: int = 0) -> list[int]:
    """``total`` whole things by ``sizes``, none left over: largest remainders first.

    Among equal remainders the share at ``turn`` (modulo their number) comes first. Whoever deals
    class after class counts it up, so that the odd images do not all go to one edge.

    >>> apportion(10, [0.7, 0.3])
    [7, 3]
    """
    exact = total * np.asarray(sizes, np.float64) / np.sum(sizes)
    counts = np.floor(exact + 1e-9).astype(np.int64)  # 0.7 / (0.7 + 0.3) * 10 is meant to be 7
    waiting = (np.arange(len(sizes)) - turn) % len(sizes)
    order = np.lexsort((waiting, -np.round(exact - counts, 9)))
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def deal(images: Ints, sizes: Sequence[float] | Floats, turn: int = 0) -> list[Ints]:
    """``images``, already in random order, cut by ``sizes``."""
    return np.split(images, np.cumsum(apportion(len(images), sizes, turn))[:-1])


def as_positions(names: Sequence[str], hands: Sequence[Sequence[Ints]]) -> dict[str, Tensor]:
    """Edge -> its sorted int64 positions, from the piles that it was dealt.

    Raises:
        PartitionError: an edge has none.
    """
    positions = {}
    for name, piles in zip(names, hands, strict=True):
        together = np.sort(np.concatenate([np.empty(0, np.int64), *piles]))
        if len(together) == 0:
            raise PartitionError(f"the partition leaves {name} without an image")
        positions[name] = torch.from_numpy(together)
    return positions
