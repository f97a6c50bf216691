"""Each site holds its own block of channels for its classes, behind a shared stem: decoupled training.

After Chen, Qin. SEC 2020. doi:10.1109/SEC50012.2020.00069 (a CNN decoupled by classes)
Fed2: Feature-Aligned Federated Learning. Yu et al. KDD 2021. arXiv:2111.14248 (the shared stem)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.cut import Cut
from sheaf.core.errors import CutError
from sheaf.core.settings import settings
from sheaf.submodels.binding_check import check_binding
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes._common import fraction_of
from sheaf.submodels.structure import ChannelGroup, ChannelStructure


@settings
class ByClass:
    """The whole stem, a block of channels of every later group, and the rows of the site's classes.

    Classes held by the same sites share a block, and a site holds the blocks of all its classes. So sites
    without a common class share no channel after the stem, and their blocks fill every group exactly; a
    class held by two sites has the same channels on both.

    Attributes:
        stem: the number of convolutions, counted from the input, that all sites hold whole; at least 0.
        by: a block's size is proportional to the number of its classes, or to the widths of its sites.
        width: the fraction of each block that is kept, above 0 and at most 1; no site holds the others.
        exact: whether to refuse a model whose bound logits would differ from those of the sub-models because
            a layer mixes channels (group normalisation, a norm, a sum or a maximum over channels). With
            false, such a model is bound inexactly, and a note gives the error.
    """

    stem: Annotated[int, Field(ge=0)] = 0
    by: Literal["classes", "width"] = "classes"
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    exact: bool = True

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Return the cut of each site, the same in every round.

        Raises:
            CutError: a group has fewer units than there are sites, a site has no classes, or ``exact`` is
                set and binding is not.
        """
        if idle := [site.name for site in sites if not site.classes]:
            raise CutError(f"{idle[0]} has no classes; cut = by_class needs at least one for each site")
        stem = set(structure.convolutions[: self.stem])
        kept: dict[str, dict[str, list[int]]] = {site.name: {} for site in sites}
        blocks = _blocks(sites, self.by)
        for group in structure.groups:
            if stem.intersection(group.layers):
                continue
            start = 0
            for (holders, _), size in zip(blocks, _sizes(group, sites, blocks), strict=True):
                units = range(start, start + (fraction_of(size, self.width) if size else 0))
                for name in holders:
                    kept[name].setdefault(group.name, []).extend(group.channels(units))
                start += size
        if len(sites) > 1:
            held_whole = {group.name for group in structure.groups if stem.intersection(group.layers)}
            check_binding(structure, held_whole, self.exact)
        return {site.name: structure.cut(kept[site.name], site.classes) for site in sites}


_Block = tuple[tuple[str, ...], float]
"""The sites that hold it, and the weight to which its size is proportional."""


def _blocks(sites: Sequence[SiteNeeds], by: str) -> list[_Block]:
    """Return one block for each set of classes held by the same sites, in the order of first classes."""
    weights: dict[tuple[str, ...], float] = {}
    for number in sorted({number for site in sites for number in site.classes}):
        holders = [site for site in sites if number in site.classes]
        # A site's width is divided equally among its classes; a class of several sites gets the mean.
        weight = sum(site.width / len(site.classes) for site in holders) / len(holders)
        names = tuple(site.name for site in holders)
        weights[names] = weights.get(names, 0.0) + (1.0 if by == "classes" else weight)
    return list(weights.items())


def _sizes(group: ChannelGroup, sites: Sequence[SiteNeeds], blocks: Sequence[_Block]) -> list[int]:
    """Return the number of units of each block, by largest remainder; each site gets at least one."""
    if group.units < len(sites):
        raise CutError(
            f"the {group.units} independent channels of {group.name!r} are too few for {len(sites)} sites; "
            "set method.cut.stem so that all sites hold the group whole"
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
