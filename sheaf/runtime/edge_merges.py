"""Merges of the edges' updates: by a rule, also layer by layer, and the contributions to an average."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from sheaf.core.recipe import Statistic
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution
from sheaf.merges.merge import Merge
from sheaf.runtime.cloud_coding import Changes
from sheaf.runtime.edge_calls import EdgeCalls
from sheaf.runtime.edge_data import summarize
from sheaf.runtime.held_models import HeldModels
from sheaf.submodels.class_rows import rows_of
from sheaf.training.merge_statistics import products


def merge_by_rule(edges: EdgeCalls, merge: Merge, theta: Params, updates: Sequence[Update]) -> Params:
    """Merge usable updates of the whole model by a rule; see ``Edges.merge``."""
    network = edges.held.network
    name = getattr(merge, "__qualname__", type(merge).__qualname__)
    merged = edges.merged(name, updates, lambda: merge(theta, updates, network))
    if not hasattr(merge, "fit_layer"):
        return merged
    changes = Changes()
    for layer in products(network.model):
        statistic = Statistic("gram", getattr(merge, "examples", None), layer=layer)
        sent = summarize(edges, merged, statistic, changes=changes)
        fit = partial(merge.fit_layer, merged, updates, sent, layer)
        merged = edges.merged(name, updates, fit, layer)
        changes = Changes(edges.calls.count, frozenset(update.site for update in sent), (layer,))
    return merged


def contributions(
    held: HeldModels, updates: Iterable[Update], *, by_examples: bool, own_rows: bool
) -> Iterator[Contribution]:
    """Yield each update with its sub-model; see ``Edges.average`` for the arguments."""
    for update in updates:
        cut, params = held.cuts.get(update.site), update.params
        if own_rows:
            classes = [label for label, count in enumerate(update.counts) if count]
            cut, params = rows_of(held.network.structure, cut, params, classes)
        weight = float(update.examples) if by_examples else 1.0
        yield Contribution(params, weight, None if cut is None else held.network.submodel(cut))
