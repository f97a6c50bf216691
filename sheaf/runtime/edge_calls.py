"""Calls of a run's edges: the quorum, refused updates, and the record of merges of updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xxhash

from sheaf.core.fleet import Fleet
from sheaf.core.recipe import Statistic
from sheaf.core.stored_params import StoredParams
from sheaf.core.task import Absence, TaskKind, Update
from sheaf.core.types import Params
from sheaf.runtime.calls import Calls, check_quorum
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.runtime.held_models import HeldModels
from sheaf.runtime.update_checks import Check, model_check


class EdgeCalls:
    """The calls of a run's edges.

    Args:
        calls: the run's calls.
        fleet: the edges.
        held: the models that the edges hold.
        quorum: the fraction of the edges that must answer a call.
        coding: codes the edges' parameters; None: they are sent as float32.
    """

    def __init__(
        self, calls: Calls, fleet: Fleet, held: HeldModels, quorum: float, coding: CloudCoding | None
    ) -> None:
        self.calls = calls
        self.held = held
        self.coding = coding
        self._fleet = fleet
        self._quorum = quorum

    def ask(
        self,
        kind: TaskKind,
        fields: Mapping[str, Mapping[str, Any]],
        counted: bool = True,
        check: Check | None = None,
    ) -> list[Update]:
        """Call the edges in ``fields``, and record which of them missed a new model; see ``Calls.ask``."""
        updates = self.calls.ask(self._fleet, kind, fields, counted, self._quorum, check, self.coding)
        if kind in ("train", "adopt", "choose"):
            given = {site for site, own in fields.items() if own["blob"] and not own.get("continues")}
            self.held.behind = (self.held.behind | given) - {update.site for update in updates}
        return updates

    def ask_for_models(
        self,
        kind: TaskKind,
        fields: Mapping[str, Mapping[str, Any]],
        statistic: Statistic | None,
        reply: bool,
    ) -> list[Update]:
        """Call the edges for the models that they hold next, and return the usable updates.

        Args:
            kind: the kind of task.
            fields: edge -> the fields of its task.
            statistic: a statistic that the updates carry.
            reply: the updates carry models. If they do not, all are usable.

        Raises:
            QuorumError: too few updates are usable.
        """
        if not reply:
            return self.ask(kind, fields)
        updates = self.ask(kind, fields, check=model_check(self.held, statistic))
        return self.usable(updates, len(fields))

    def usable(self, updates: Sequence[Update], total: int, holds: bool = True) -> list[Update]:
        """Return the updates that can be merged, refuse the others, and check the quorum of ``total``.

        Args:
            updates: the answers to the latest call.
            total: the edges that were asked.
            holds: whether an edge holds the model of its update.

        Raises:
            QuorumError: too few updates are usable.
        """
        usable, refused = [], []
        for update in updates:
            if why := self.calls.flaws.get(update.site):
                self.calls.refuse(update.site, why)
                if holds:
                    self.held.behind.add(update.site)
                refused.append(Absence(update.site, why))
            else:
                usable.append(update)
        check_quorum(len(usable), total, self._quorum, "sent a usable update", refused)
        return usable

    def merged(
        self,
        name: str,
        updates: Sequence[Update],
        merge: Callable[[], Params],
        layer: str | None = None,
    ) -> StoredParams:
        """Return the recorded result of a merge of updates; see ``Calls.merged``.

        Args:
            name: of the merge.
            updates: the updates. Their sites are part of the description that a resumed run compares.
            merge: computes the result.
            layer: the layer that is merged, for a merge of one layer after another.
        """
        sites = "\n".join(update.site for update in updates)
        of = f"{len(updates)} updates by {name} ({xxhash.xxh3_64_hexdigest(sites.encode())[:8]})"
        return self.calls.merged(of if layer is None else f"{of}, {layer}", merge)
