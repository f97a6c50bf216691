"""The edges, as a method sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe, Share, Statistic
from sheaf.core.task import Absence, Fleet, TaskKind, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.core.wire_format import encode_samples
from sheaf.merges.average import Contribution
from sheaf.merges.check import misfit
from sheaf.merges.merge import Merge
from sheaf.runtime.calls import Calls, check_quorum
from sheaf.submodels.scheme import Scheme, SiteNeeds
from sheaf.training.merge_statistics import blank
from sheaf.training.network import Network


class Edges:
    """The edges, as a method sees them.

    Args:
        calls: the run's calls.
        fleet: where the edges are.
        network: the global model, for what can be cut of it.
        needs: what each edge has to tell apart and can carry, in the order of the fleet's names.
        quorum: the share of the edges whose answer a call needs.
        drawn: start weights by a seed.
    """

    def __init__(
        self,
        calls: Calls,
        fleet: Fleet,
        network: Network,
        needs: Sequence[SiteNeeds],
        quorum: float,
        drawn: Callable[[int], Params],
    ) -> None:
        self.needs = tuple(needs)
        self._calls = calls
        self._fleet = fleet
        self._network = network
        self._quorum = quorum
        self._drawn = drawn
        self._theta: Params | None = None
        self._cuts: dict[str, Cut] = {}
        self._behind: set[str] = set()  # edges that do not hold the model which they were last given

    def cut(self, scheme: Scheme, round: int = 0) -> dict[str, Cut]:
        """Each edge's cut by a scheme (``cuts/``) in one round, counted from 0.

        Raises:
            CutError: the model cannot be cut so.
        """
        known = [site for site in self.needs if site.classes]  # an edge that has never been there has none
        return scheme(self._network.structure, known, round)

    def train(
        self,
        theta: Params | None,
        recipe: Recipe,
        *,
        cuts: Mapping[str, Cut] | None = None,
        own_start: bool = False,
        outliers: float = 0.0,
        only: Sequence[str] | None = None,
        reply: bool = True,
        statistic: Statistic | None = None,
    ) -> list[Update]:
        """Each edge trains ``theta`` (None: what it holds) by ``recipe``, and holds the result.

        Args:
            theta: the global model; an edge with a cut gets its part of it.
            cuts: edge -> what it holds from now on; None is the whole model. Only with ``theta``.
            own_start: each edge begins with weights that are drawn for it instead. Only without cuts.
            outliers: see ``Task``.
            only: the edges that are asked; all by default.
            reply: whether the result is sent back. It is then usable: an update that is not finite or not of
                the model's shape is refused by name.
            statistic: what the answers carry beside the parameters, for the merge; see ``statistic_of``.

        Raises:
            QuorumError: too few answers were usable.
        """
        if own_start and (theta is None or cuts is not None):
            raise ValueError("own start weights are of the whole model, and for a start")
        if theta is not None:
            self._theta, self._cuts = theta, dict(cuts or {})
        elif cuts is not None:
            raise ValueError("an edge that goes on from what it holds keeps its cut")
        asked = {"recipe": recipe, "outliers": outliers, "reply": reply, "statistic": statistic}
        what = self._what(theta, only, **asked)
        if own_start:
            for site, of_site in what.items():
                of_site["blob"] = Blob.of(self._drawn(self._calls.seed("start", site)))
        updates = self._ask("train", what)
        return self._usable(updates, len(what), statistic) if reply else updates

    def merge(self, merge: Merge, theta: Params, updates: Sequence[Update]) -> Params:
        """What usable updates of the whole model come to by a merge (``merges/``)."""
        return merge(theta, updates, self._network)

    def sample(self, among: Sequence[str], share: float) -> list[str]:
        """A share of these edges, at least one, drawn anew before each call; in the order of the fleet."""
        count = max(1, round(share * len(among)))
        chosen = torch.randperm(len(among), generator=self._calls.draws("sample"))[:count]
        return [among[at] for at in chosen.sort().values.tolist()]

    def adopt(self, theta: Params, cuts: Mapping[str, Cut] | None = None) -> None:
        """Each edge holds ``theta``, or its part of it, from now on."""
        self._theta, self._cuts = theta, dict(cuts or {})
        self._ask("adopt", self._what(theta))

    def evaluate(self) -> list[Update]:
        """Each edge measures what it holds on its test data; not counted, as it is no part of a method."""
        return self._ask("evaluate", self._what(None), counted=False)

    def share(self, share: Share) -> list[Update]:
        """Each edge sends up so much of its training samples.

        Raises:
            SettingError: they are to be chosen by a model, and the edges hold none yet.
        """
        if share.choose == "uncertain" and self._theta is None:
            raise SettingError(
                "method.share.choose = 'uncertain' goes by the model that an edge holds, and this method has "
                "the samples sent before there is one; allowed: random, balanced"
            )
        return self._ask("share", self._what(None, share=share))

    def remember(self) -> int:
        """Each edge sets aside a copy of what it holds; returns the call, for ``choose`` to name it by.

        The two newest copies are kept.
        """
        self._ask("remember", self._what(None))
        return self._calls.count

    def choose(
        self,
        since: int,
        mixtures: Sequence[float],
        *,
        baseline: int = 0,
        statistic: Statistic | None = None,
        reply: bool = False,
    ) -> list[Update]:
        """Each edge decides on its held-out examples what it holds from now on.

        That is what it remembered, what it holds, or a mixture of both; see ``Task``. With no ``mixtures``
        each is rolled back to what it remembered. The answers say which, for ``log``.

        Args:
            since: what ``remember`` returned.
            mixtures: the values of a in (1 - a) remembered + a held; 0 is always one.
            baseline: what an earlier ``remember`` returned, if the choice is to be no less accurate on the
                held-out examples than that model, where that can be had; ``since`` by default.
            statistic, reply: whether what was chosen is sent back, and with what; see ``train``.

        Raises:
            QuorumError: too few answers were usable.
        """
        asked: dict[str, Any] = {"since": since, "mixtures": tuple(mixtures), "baseline": baseline}
        what = self._what(None, **asked, statistic=statistic, reply=reply)
        updates = self._ask("choose", what)
        return self._usable(updates, len(what), statistic) if reply else updates

    def lend(self, pool: Samples) -> None:
        """Each edge gets those of the pooled samples that are of none of its classes."""
        what = {}
        for site in (site for site in self.needs if site.classes):
            foreign = ~torch.isin(pool.labels, torch.tensor(site.classes))
            what[site.name] = {"blob": encode_samples(pool.select(foreign))}
        self._ask("lend", what)

    def collect(self) -> list[Update]:
        """Each edge sends up what it holds, for the record; not counted."""
        return self._ask("collect", self._what(None), counted=False)

    def cut_of(self, site: str) -> Cut | None:
        """What the edge holds of the model; None for all."""
        return self._cuts.get(site)

    def contributions(self, updates: Iterable[Update], *, by_examples: bool) -> Iterator[Contribution]:
        """Yield each update with its sub-model, for ``average``.

        Args:
            by_examples: weigh an update by its training examples, not by 1.
        """
        for update in updates:
            cut = self._cuts.get(update.site)
            weight = float(update.examples) if by_examples else 1.0
            yield Contribution(update.params, weight, None if cut is None else self._network.submodel(cut))

    def _ask(
        self, kind: TaskKind, what: Mapping[str, Mapping[str, Any]], counted: bool = True
    ) -> list[Update]:
        """Asks the edges, and notes which of them missed a model that they were to hold."""
        updates = self._calls.ask(self._fleet, kind, what, counted, self._quorum)
        if kind in ("train", "adopt", "choose"):
            given = {site for site in what if what[site]["blob"] is not None}
            self._behind = (self._behind | given) - {update.site for update in updates}
        return updates

    def _what(
        self, theta: Params | None, only: Sequence[str] | None = None, **settings: Any
    ) -> dict[str, dict[str, Any]]:
        """Site -> its cut and its part of ``theta``, encoded once for all that hold the same.

        An edge that is to go on from what it holds, but missed that, is given it now. One that was absent
        when cuts were made has none, and is left out.
        """
        blobs: dict[tuple[Cut | None, bool], Blob | None] = {}
        what = {}
        for site in only or self._fleet.names():
            if self._cuts and site not in self._cuts:
                continue
            cut, given = self._cuts.get(site), theta
            if theta is None and site in self._behind:
                given = self._theta
            if (cut, given is None) not in blobs:
                blobs[cut, given is None] = None if given is None else Blob.of(self._part_of(given, cut))
            what[site] = {"blob": blobs[cut, given is None], "cut": cut, **settings}
        return what

    def _part_of(self, theta: Params, cut: Cut | None) -> Params:
        return theta if cut is None else self._network.submodel(cut).take(theta)

    def _usable(self, updates: Sequence[Update], asked: int, statistic: Statistic | None) -> list[Update]:
        usable, refused = [], []
        for update in updates:
            if why := self._flaw(update, statistic):
                self._calls.refuse(update.site, why)
                self._behind.add(update.site)
                refused.append(Absence(update.site, why))
            else:
                usable.append(update)
        check_quorum(len(usable), asked, self._quorum, "sent a usable update", refused)
        return usable

    def _flaw(self, update: Update, statistic: Statistic | None) -> str | None:
        """Why an update cannot be used; None where it can."""
        assert self._theta is not None, "edges answer with a model only after they were given one"
        cut = self._cuts.get(update.site)
        try:
            why = misfit(self._part_of(self._theta, cut), update.params)
            if why is None and statistic is not None:
                why = misfit(blank(self._network.of(cut), statistic.kind), update.statistics)
                why = why and f"its {statistic.kind} statistic: {why}"
        except (SafetensorError, ValueError) as error:
            return f"its parameters cannot be read: {error}"
        return why
