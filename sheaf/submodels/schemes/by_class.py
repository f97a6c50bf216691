"""Each site has a block of channels of its own for its classes, behind a shared stem: decoupled training.

After Chen, Qin. SEC 2020. doi:10.1109/SEC50012.2020.00069, which decouples a CNN by classes
Fed2: Feature-Aligned Federated Learning. Yu et al. KDD 2021. arXiv:2111.14248 (the shared stem)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.core.settings import settings
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes._common import part_of
from sheaf.submodels.structure import ChannelGroup, ChannelStructure


@settings
class ByClass:
    """The stem whole; of every group after it a block of channels; the rows of the site's classes.

    Classes that the same sites hold share a block, and a site has the blocks of all of its classes. So
    sites without a class in common have nothing in common after the stem, and their blocks fill every
    group exactly; a class that two sites hold is in the same channels of both.

    Attributes:
        stem: how many convolutions, counted from the input, all sites hold whole.
        by: whether blocks are as wide as the number of their classes asks for, or by the sites' widths.
        width: how much of each block is kept; the channels left out are nobody's.
    """

    stem: Annotated[int, Field(ge=0)] = 0
    by: Literal["classes", "width"] = "classes"
    width: Annotated[float, Field(gt=0, le=1)] = 1.0

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Site -> its cut, the same in every round.

        Raises:
            CutError: a group has fewer channels than there are sites; a site has no classes.
        """
        if idle := [site.name for site in sites if not site.classes]:
            raise CutError(f"{idle[0]} has no classes, so no part of the model can be its own")
        stem = set(structure.convolutions[: self.stem])
        kept: dict[str, dict[str, list[int]]] = {site.name: {} for site in sites}
        blocks = _blocks(sites, self.by)
        for group in structure.groups:
            if stem.intersection(group.layers):
                continue
            start = 0
            for (holders, _), size in zip(blocks, _sizes(group, sites, blocks), strict=True):
                units = range(start, start + (part_of(size, self.width) if size else 0))
                for name in holders:
                    kept[name].setdefault(group.name, []).extend(group.channels(units))
                start += size
        return {site.name: structure.cut(kept[site.name], site.classes) for site in sites}


_Block = tuple[tuple[str, ...], float]
"""The sites that hold it, and what its size is in proportion to."""


def _blocks(sites: Sequence[SiteNeeds], by: str) -> list[_Block]:
    """One for each set of classes that the same sites hold, in the order of their first classes."""
    weights: dict[tuple[str, ...], float] = {}
    for number in sorted({number for site in sites for number in site.classes}):
        holders = [site for site in sites if number in site.classes]
        # A site's share goes to its classes in equal parts; where sites differ on a class, their mean.
        share = sum(site.width / len(site.classes) for site in holders) / len(holders)
        names = tuple(site.name for site in holders)
        weights[names] = weights.get(names, 0.0) + (1.0 if by == "classes" else share)
    return list(weights.items())


def _sizes(group: ChannelGroup, sites: Sequence[SiteNeeds], blocks: Sequence[_Block]) -> list[int]:
    """How many of the group's positions each block gets, by largest remainder; every site gets one."""
    if group.units < len(sites):
        raise CutError(
            f"the {group.units} channels of {group.name!r} that can be chosen are too few for "
            f"{len(sites)} sites; a deeper stem would leave it whole"
        )
    total = sum(weight for _, weight in blocks)
    exact = [group.units * weight / total for _, weight in blocks]
    sizes = [0] * len(blocks)
    for site in sites:
        own = [b for b, (holders, _) in enumerate(blocks) if site.name in holders]
        sizes[max(own, key=lambda b: exact[b])] = 1
    while sum(sizes) < group.units:
        sizes[max(range(len(blocks)), key=lambda b: exact[b] - sizes[b])] += 1
    return sizes
