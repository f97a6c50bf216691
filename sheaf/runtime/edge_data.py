"""Calls in which edges send data: samples, or statistics of their training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Share, Statistic
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.runtime.cloud_coding import Changes
from sheaf.runtime.edge_calls import EdgeCalls
from sheaf.runtime.update_checks import statistic_check
from sheaf.submodels.scheme import SiteNeeds
from sheaf.training.statistics import blank


def collect_samples(edges: EdgeCalls, share: Share, needs: Sequence[SiteNeeds]) -> list[Update]:
    """Collect training samples from the edges; see ``Edges.share``.

    Args:
        edges: the edges.
        share: the samples.
        needs: how much each edge shares at most.
    """
    if share.choose == "uncertain" and edges.held.theta is None:
        raise SettingError(
            "method.share.choose = 'uncertain' needs a trained model on the edge, but this method shares "
            "samples before training; allowed: 'random', 'balanced'"
        )
    fields = edges.held.fields(None, share=share)
    for edge in needs:
        if edge.name in fields and edge.share < share.fraction:
            fields[edge.name]["share"] = replace(share, fraction=edge.share)
    return edges.ask("share", fields)


def summarize(
    edges: EdgeCalls,
    theta: Params,
    statistic: Statistic,
    cuts: Mapping[str, Cut] | None = None,
    *,
    bound: Mapping[str, Cut] | None = None,
    changes: Changes | None = None,
) -> list[Update]:
    """Return each edge's statistic of ``theta``, or of its sub-model; see ``Edges.summarize``.

    Args:
        edges: the edges.
        theta: the global model.
        statistic: the statistic.
        cuts: see ``Edges.summarize``.
        bound: see ``Edges.summarize``.
        changes: the difference of ``theta`` from the model of an earlier call, which an edge that holds
            that model receives instead of ``theta``. If there is a codec, the codec sends differences.
    """
    held = edges.held
    network = held.network
    if not blank(network, None, statistic):
        return []
    whole, cuts = blob_of(theta), cuts or {}
    blocks = network.blocks((bound or {}).values())
    if blocks:
        whole = held.bound_blob(theta, whole, blocks)
    fields: dict[str, dict[str, Any]] = {}
    for site in held.sites():
        cut = cuts.get(site)
        blob = whole if cut is None else held.cut_blob(theta, whole, cut)
        fields[site] = {"blob": blob, "cut": cut, "statistic": statistic, "blocks": blocks}
        if changes is not None and (edges.coding is None or edges.coding.is_exact(site)):
            fields[site] |= changes.fields(site, theta, whole, network.shapes(None))
    updates = edges.ask("summarize", fields, check=statistic_check(network, statistic, cuts))
    return edges.usable(updates, len(fields), holds=False)


def total(edges: EdgeCalls, updates: Sequence[Update], statistic: Statistic) -> Params:
    """Return the recorded sum of the statistics of updates of equal cuts, in float64."""
    return edges.merged(statistic.kind, updates, lambda: _sum(updates)) if updates else {}


def _sum(updates: Sequence[Update]) -> Params:
    """Return the sum of the updates' statistics, one update in memory at a time."""
    sums: dict[str, Tensor] = {}
    for update in updates:
        for name, value in update.statistics.items():
            sums[name] = sums[name] + value if name in sums else value.double()
    return sums
