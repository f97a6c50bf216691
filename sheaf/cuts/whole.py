"""Every site holds the whole model, as FedAvg and ECAvg have it."""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.cut import Anatomy, SiteNeeds
from sheaf.types import Cut, settings


@settings
class Whole:
    """All channels, all classes."""

    def __call__(self, anatomy: Anatomy, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Site -> its cut, which is the same for all in every round."""
        return {site.name: anatomy.cut() for site in sites}
