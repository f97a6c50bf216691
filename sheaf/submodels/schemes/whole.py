"""Each site holds the whole model, as in FedAvg and ECAvg."""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.cut import Cut
from sheaf.core.settings import settings
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.structure import ChannelStructure


@settings
class Whole:
    """All channels and the rows of all classes."""

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Return the cut of each site, the same in every round."""
        return {site.name: structure.cut() for site in sites}
