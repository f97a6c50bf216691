"""Every site holds the whole model, as FedAvg and ECAvg have it."""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.cut import Cut
from sheaf.core.settings import settings
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.structure import ChannelStructure


@settings
class Whole:
    """All channels, all classes."""

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Site -> its cut, which is the same for all in every round."""
        return {site.name: structure.cut() for site in sites}
