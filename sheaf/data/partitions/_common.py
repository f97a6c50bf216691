"""Helpers of the partitions: names of edges, classes by name, apportionment of whole examples."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from sheaf.core.errors import PartitionError, nearest
from sheaf.core.site_names import check_edge_name
from sheaf.data.readers.encoded import Ints, abbreviate

Floats: TypeAlias = npt.NDArray[np.float64]
Count: TypeAlias = Annotated[int, Field(ge=1)]
RelativeSize: TypeAlias = Annotated[float, Field(gt=0)]
ClassList: TypeAlias = tuple[int | str, ...]
"""Classes by name or by index; if every class name is a number, numbers are names."""
ClassesOfEdges: TypeAlias = Count | tuple[ClassList, ...] | dict[str, ClassList]
"""A number of edges, the classes of each edge, or the classes by the name of the edge."""


def edge_names(count: int) -> list[str]:
    """Return ``edge-1``, ``edge-2`` and so on, with leading zeros so that their order is alphabetical."""
    return [f"edge-{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def equal_or(sizes: tuple[float, ...] | None, count: int) -> tuple[float, ...]:
    """Return ``sizes``, or ``count`` equal sizes if unset.

    Raises:
        PartitionError: the number of sizes is not ``count``.
    """
    if sizes is not None and len(sizes) != count:
        raise PartitionError(f"partition.sizes has {len(sizes)} values for {count} edges; give one per edge")
    return sizes or (1.0,) * count


def owned_classes(
    edges: ClassesOfEdges, classes: Sequence[str], sizes: tuple[float, ...] | None = None
) -> dict[str, list[int]]:
    """Return the class indices of each edge.

    Args:
        edges: a number divides the classes, in their order, into that number of runs; a list gives the
            classes of each edge; a table also gives its name.
        classes: the K class names.
        sizes: the relative lengths of the runs. Unset: as equal as possible, the first ones longer.

    Raises:
        PartitionError: an edge's name is invalid, a class is unknown or on no edge, or an edge has no class.
    """
    if isinstance(edges, int):
        runs = apportion(len(classes), equal_or(sizes, edges))
        if 0 in runs:
            raise PartitionError(
                f"{len(classes)} classes are too few to give each of {edges} edges one; "
                "lower partition.edges or list the classes of each edge"
            )
        blocks = np.split(np.arange(len(classes)), np.cumsum(runs)[:-1])
        return {name: block.tolist() for name, block in zip(edge_names(edges), blocks, strict=True)}
    if not isinstance(edges, Mapping):
        edges = dict(zip(edge_names(len(edges)), edges, strict=True))
    owned = {name: _indices(name, given, classes) for name, given in edges.items()}
    missing = sorted(set(range(len(classes))) - {index for own in owned.values() for index in own})
    if missing:
        raise PartitionError(
            f"partition.edges puts {len(missing)} of {len(classes)} classes on no edge: "
            f"{abbreviate(classes[index] for index in missing)}; put each on at least one"
        )
    return owned


def _indices(edge: str, given: ClassList, classes: Sequence[str]) -> list[int]:
    check_edge_name(edge)
    indices = [_index(edge, one, classes) for one in given]
    if repeated := [index for index in set(indices) if indices.count(index) > 1]:
        raise PartitionError(
            f"partition.edges gives {edge} class {classes[repeated[0]]!r} twice; list it once"
        )
    return indices


def _index(edge: str, given: int | str, classes: Sequence[str]) -> int:
    names_are_numbers = all(name.isdecimal() for name in classes)
    name = str(given) if given in classes else unicodedata.normalize("NFC", str(given))
    if name in classes and (isinstance(given, str) or names_are_numbers):
        return list(classes).index(name)
    if isinstance(given, int) and names_are_numbers:
        equal = [index for index, other in enumerate(classes) if int(other) == given]
        if len(equal) == 1:
            return equal[0]
        allowed = f"; allowed: {abbreviate(classes, 20)}"
    elif isinstance(given, int):
        if 0 <= given < len(classes):
            return given
        allowed = f"; allowed: 0 to {len(classes) - 1}"
    else:
        allowed = nearest(given, classes)
    raise PartitionError(f"partition.edges gives {edge} class {given!r}, which is not in the data{allowed}")


def shuffled_classes(labels: Tensor, classes: Sequence[str], rng: np.random.Generator) -> list[Ints]:
    """Return the positions of the examples of each class in random order."""
    return [rng.permutation(np.flatnonzero(labels.numpy() == index)) for index in range(len(classes))]


def apportion(total: int, sizes: Sequence[float] | Floats, turn: int = 0) -> list[int]:
    """Divide ``total`` items in proportion to ``sizes`` by the method of largest remainders.

    Among equal remainders, the item goes to the size at ``turn`` (modulo their number) first. A caller that
    divides class after class increments ``turn``, so that the odd examples do not all go to one edge.

    >>> apportion(10, [0.7, 0.3])
    [7, 3]
    """
    exact = total * np.asarray(sizes, np.float64) / np.sum(sizes)
    counts = np.floor(exact + 1e-9).astype(np.int64)  # 0.7 / (0.7 + 0.3) * 10 is to be 7
    queue = (np.arange(len(sizes)) - turn) % len(sizes)
    order = np.lexsort((queue, -np.round(exact - counts, 9)))
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def deal(examples: Ints, sizes: Sequence[float] | Floats, turn: int = 0) -> list[Ints]:
    """Split ``examples``, already in random order, in proportion to ``sizes``."""
    return np.split(examples, np.cumsum(apportion(len(examples), sizes, turn))[:-1])


def merge_piles(names: Sequence[str], piles: Sequence[Sequence[Ints]]) -> dict[str, Tensor]:
    """Return the sorted int64 positions of each edge: the union of its piles.

    Raises:
        PartitionError: an edge has no example.
    """
    positions = {}
    for name, own in zip(names, piles, strict=True):
        merged = np.sort(np.concatenate([np.empty(0, np.int64), *own]))
        if len(merged) == 0:
            raise PartitionError(
                f"the partition leaves {name} without an example; use fewer edges or more data"
            )
        positions[name] = torch.from_numpy(merged)
    return positions
