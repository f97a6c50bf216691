"""Each site holds the first channels of every layer, up to its width: HeteroFL.

HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients. Diao,
Ding, Tarokh. ICLR 2021. arXiv:2010.01264
"""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.cut import Cut
from sheaf.core.settings import settings
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes._common import window
from sheaf.submodels.structure import ChannelStructure


@settings
class Prefix:
    """The first ``ceil(width * channels)`` channels of every group, and the rows of all classes."""

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Return the cut of each site, the same in every round. A width of 1 is the whole model."""
        return {
            site.name: structure.cut({group.name: window(group, site.width, 0) for group in structure.groups})
            for site in sites
        }
