"""A window of channels that moves on by one in every round, so that all get trained: FedRolex.

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
    """``ceil(share * width)`` channels of every group, from channel ``round mod width`` on, and around its
    end; all classes' rows.
    """

    def __call__(self, structure: ChannelStructure, sites: Sequence[SiteNeeds], round: int) -> dict[str, Cut]:
        """Site -> its cut of this round, counted from 0. A share of 1 is the whole model."""
        return {
            site.name: structure.cut(
                {group.name: window(group, site.width, round) for group in structure.groups}
            )
            for site in sites
        }
