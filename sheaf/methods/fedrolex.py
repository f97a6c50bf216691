"""FedRolex: each edge trains a window of every layer's channels, which moves on each round.

FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction.
Samiul Alam, Luyang Liu, Ming Yan, Mi Zhang, 2022. https://arxiv.org/abs/2212.01548
"""

from __future__ import annotations

from sheaf.core.settings import settings
from sheaf.methods.heterofl import HeteroFL
from sheaf.submodels.scheme import Scheme
from sheaf.submodels.schemes.rolling import Rolling


@settings
class FedRolex(HeteroFL):
    """Settings of FedRolex: those of HeteroFL, with another default.

    Attributes:
        cut: the scheme that selects the sub-model of each edge in a round.
    """

    cut: Scheme = Rolling()
