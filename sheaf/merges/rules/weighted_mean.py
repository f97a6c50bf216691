"""Mean weighted by each site's number of training examples, as FedAvg averages its clients."""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.training.network import Network


@settings
class WeightedMean:
    """theta = sum_k (n_k / n) theta_k (McMahan et al. 2017, arXiv 1602.05629, algorithm 1)."""

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Average the updates; see ``average``."""
        return average(theta, (Contribution(update.strided_params, update.examples) for update in updates))
