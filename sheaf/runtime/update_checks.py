"""The checks of edges' updates: functions that return why an update cannot be used, or None if it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from safetensors import SafetensorError

from sheaf.core.cut import Cut
from sheaf.core.lazy_blob import TensorBlob
from sheaf.core.recipe import Statistic
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.check import misfit
from sheaf.runtime.held_models import HeldModels
from sheaf.training.network import Network
from sheaf.training.statistics import blank

Check = Callable[[Update], str | None]
"""Returns why an update cannot be used, or None if it can."""


def model_check(held: HeldModels, statistic: Statistic | None) -> Check:
    """Return the check of updates with the model that an edge holds, and with a statistic for the merge."""
    expected: dict[Cut | None, Params] = {}  # of the latest cut

    def flaw(update: Update) -> str | None:
        assert held.theta is not None, "edges send a model only after they got one"
        cut = held.cuts.get(update.site)
        if cut not in expected:
            expected.clear()
            expected[cut] = dict(held.take(held.theta, cut))
        try:
            finite = isinstance(update.blob, TensorBlob) and update.blob.is_finite
            why = misfit(expected[cut], update.strided_params, finite)
            if why is None and statistic is not None:
                why = misfit(blank(held.network, cut, statistic), update.statistics)
                why = why and f"its {statistic.kind} statistic: {why}"
        except (SafetensorError, ValueError) as error:
            return f"its parameters cannot be read: {error}"
        return why

    return flaw


def statistic_check(network: Network, statistic: Statistic, cuts: Mapping[str, Cut]) -> Check:
    """Return the check of updates with only a statistic.

    Args:
        network: the global model.
        statistic: the statistic.
        cuts: edge -> the cut of the model that the statistic describes; the whole model for other edges.
    """

    def flaw(update: Update) -> str | None:
        try:
            sent = update.statistics
        except (SafetensorError, ValueError) as error:
            return f"its statistic cannot be read: {error}"
        if why := misfit(blank(network, cuts.get(update.site), statistic), sent):
            return f"its {statistic.kind} statistic: {why}"
        exact = statistic.kind == "features" and statistic.noise is None and statistic.examples is None
        if exact and sent["counts"].tolist() != list(update.counts):
            return f"its {statistic.kind} statistic counts other examples than it trains on"
        return None

    return flaw
