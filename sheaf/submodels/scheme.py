"""The setting that names a scheme of cuts, and a scheme's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.core.settings import plugin_field
from sheaf.submodels.structure import ChannelStructure


@dataclass(frozen=True)
class SiteNeeds:
    """A site's classes and capacity. A scheme of cuts uses its classes and its width.

    Attributes:
        name: the site's name.
        classes: the classes in its data, sorted.
        width: the fraction of the channels of every layer that the site can train, above 0 and at most 1.
        work: the fraction of each training that the site does, above 0 and at most 1; see ``Recipe``.
        share: the largest fraction of its training samples that the site sends, above 0 and at most 1.

    Raises:
        CutError: the width is out of range.
    """

    name: str
    classes: tuple[int, ...]
    width: float = 1.0
    work: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1:
            raise CutError(f"{self.name}'s width is {self.width}; it must be above 0 and at most 1")


Scheme = Annotated[
    Callable[[ChannelStructure, Sequence[SiteNeeds], int], dict[str, Cut]], plugin_field("cuts")
]
"""A setting that names a scheme: a function of structure, sites and round that returns site -> cut."""
