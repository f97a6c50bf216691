"""Each site holds a window of channels that moves on by one each round, so all get trained: FedRolex.

FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction. Alam, Liu, Yan, Zhang.
NeurIPS 2022. arXiv:2212.01548
"""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.cut import Cut
from sheaf.core.settings import settings
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes._common import window
from sheaf.submodels.structure import ChannelStructure


@settings
class Rolling:
    """A window of ``ceil(width * channels)`` channels of every group, and the rows of all classes.

    The window starts at channel ``round mod channels`` and wraps around.
    """

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Return the cut of each site in this round, counted from 0. A width of 1 is the whole model."""
        return {
            site.name: structure.cut(
                {group.name: window(group, site.width, round) for group in structure.groups}
            )
            for site in sites
        }
