"""Plain mean of the sites' parameters, as ECAvg averages its edges."""

from __future__ import annotations

from collections.abc import Sequence

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.training.network import Network


@settings
class Mean:
    """theta_avg = sum_k theta_k / M over the M sites (Mih et al. 2023, section III)."""

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Average the updates; see ``average``."""
        return average(theta, (Contribution(update.strided_params, 1.0) for update in updates))
