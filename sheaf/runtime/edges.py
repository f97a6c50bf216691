"""The edges' interface for methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.errors import SettingError, WeightsError
from sheaf.core.lazy_blob import LazyBlob, TensorBlob, origin_of
from sheaf.core.recipe import Recipe, Share, Statistic
from sheaf.core.stored_params import blob_of
from sheaf.core.task import Absence, Fleet, TaskKind, Update
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.core.types import Params
from sheaf.core.wire_format import encode_samples
from sheaf.merges.average import Contribution, average
from sheaf.merges.check import misfit
from sheaf.merges.merge import Merge
from sheaf.runtime.calls import Calls, check_quorum
from sheaf.runtime.cloud_coding import Changes, CloudCoding
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.submodels.class_rows import rows_of
from sheaf.submodels.scheme import Scheme, SiteNeeds
from sheaf.training.merge_statistics import products
from sheaf.training.network import Blocks, Network
from sheaf.training.statistics import blank


class Edges:
    """The edges of a run. Each holds the global model or a sub-model.

    Args:
        calls: the run's calls.
        fleet: the edges.
        network: the global model.
        needs: the classes and the width of each edge, in the order of the fleet's names.
        quorum: the fraction of the edges that must answer a call.
        drawn: function that returns start parameters for a seed.
        start: edge -> the cut and the parameters of the model from which its training begins in the first
            call that trains, instead of ``theta``. An edge whose cut is another one begins from ``theta``.
        coding: codes the edges' parameters; None: they are sent as float32.
    """

    def __init__(
        self,
        calls: Calls,
        fleet: Fleet,
        network: Network,
        needs: Sequence[SiteNeeds],
        quorum: float,
        drawn: Callable[[int], Params],
        start: Mapping[str, tuple[Cut | None, Blob]] | None = None,
        coding: CloudCoding | None = None,
    ) -> None:
        self.needs = tuple(needs)
        self._calls = calls
        self._fleet = fleet
        self._network = network
        self._quorum = quorum
        self._drawn = drawn
        self._start = dict(start or {})
        self._coding = coding
        self._theta: Params | None = None
        self._cuts: dict[str, Cut] = {}
        self._behind: set[str] = set()  # edges that missed the model which they should hold

    @property
    def theta(self) -> Params | None:
        """The global model that the edges were sent last; None before the first."""
        return self._theta

    def cut(self, scheme: Scheme, round: int = 0) -> dict[str, Cut]:
        """Return each edge's cut.

        Args:
            scheme: a cut scheme (``submodels/schemes/``).
            round: number of the round, from 0.

        Raises:
            CutError: the scheme cannot cut the model for these edges.
        """
        known = [site for site in self.needs if site.classes]  # an edge that was never online has no classes
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
        own: Mapping[str, EdgeTensors] | None = None,
    ) -> list[Update]:
        """Train the edges' models; each edge holds its result.

        Args:
            theta: the global model from which each edge gets its sub-model; None continues from the held one.
            recipe: how to train.
            cuts: edge -> its cut from now on; None is the whole model for all. Needs ``theta``.
            own_start: start each edge from parameters drawn for it instead. Needs ``theta`` without cuts.
            outliers: synthetic examples per training example; see ``Task``.
            only: names of the edges to train; all by default.
            reply: return the results. Updates with another shape than the model or values that are not finite
                are refused.
            statistic: a statistic for the merge that the updates carry; see ``statistic_of``.
            own: edge -> constants of the recipe's loss, and parameters that replace those of ``theta``.

        Returns:
            The usable updates; without ``reply``, updates without parameters.

        Raises:
            QuorumError: too few updates are usable.
        """
        if own_start and (theta is None or cuts is not None):
            raise ValueError("own_start needs theta and no cuts")
        if theta is not None:
            self._theta, self._cuts = theta, dict(cuts or {})
        elif cuts is not None:
            raise ValueError("cuts need theta: an edge that continues keeps its cut")
        settings = {"recipe": recipe, "outliers": outliers, "reply": reply, "statistic": statistic}
        fields = self._fields(theta, only, **settings)
        for edge in self.needs:
            if edge.name in fields and edge.work < 1:
                fields[edge.name]["recipe"] = replace(recipe, work=edge.work * recipe.work)
        if own_start:
            for site in fields:
                fields[site]["blob"] = Blob.of(self._drawn(self._calls.seed("start", site)))
        if theta is not None:
            self._begin_from_start(theta, fields)
        for site in own or {}:
            if site in fields:
                fields[site]["continues"] = fields[site]["blob"] is None
        self._add(own, fields)
        updates = self._ask("train", fields, check=self._check(statistic) if reply else None)
        return self._usable(updates, len(fields)) if reply else updates

    def _begin_from_start(self, theta: Params, fields: Mapping[str, dict[str, Any]]) -> None:
        """Replace ``theta`` by the edges' own start models, where these fit."""
        for site in fields:
            cut, blob = self._start.get(site, (None, None))
            if blob is not None and cut == self._cuts.get(site):
                if why := misfit(self._take(theta, cut), blob.open()):
                    raise WeightsError(f"the start model of {site} does not fit: {why}")
                fields[site]["blob"] = blob
        self._start = {}

    def merge(self, merge: Merge, theta: Params, updates: Sequence[Update]) -> Params:
        """Merge usable updates of the whole model by a rule (``merges/rules/``).

        The result is recorded: a resumed run does not merge again, and the updates' files can be deleted. A
        rule with a method ``fit_layer``, such as ``regmean_plus_plus``, fits one layer after another to a
        statistic that the edges compute of the model merged so far, in a call for each layer.
        """
        name = getattr(merge, "__qualname__", type(merge).__qualname__)
        of = _describe(name, updates)
        merged = self._calls.merged(of, lambda: merge(theta, updates, self._network))
        if not hasattr(merge, "fit_layer"):
            return merged
        changes = Changes()
        for layer in products(self._network.model):
            statistic = Statistic("gram", getattr(merge, "examples", None), layer=layer)
            sent = self.summarize(merged, statistic, changes=changes)
            fit = partial(merge.fit_layer, merged, updates, sent, layer)
            merged = self._calls.merged(f"{of}, {layer}", fit)
            changes = Changes(self._calls.count, frozenset(update.site for update in sent), (layer,))
        return merged

    def average(
        self,
        theta: Params,
        updates: Sequence[Update],
        *,
        by_examples: bool,
        unheld: Literal["keep", "zero"] = "keep",
        own_rows: bool = False,
    ) -> Params:
        """Average usable updates of sub-models, recorded as in ``merge``; see ``merges.average``.

        Args:
            theta: the model that is merged into.
            updates: of the latest ``train`` or ``choose``.
            by_examples: weigh an update by its training examples, not by 1.
            unheld: parameters that no edge holds keep their value in ``theta``, or become 0.
            own_rows: an edge counts only in the classifier's rows of the classes that it has examples of.
        """
        parts = self.contributions(updates, by_examples=by_examples, own_rows=own_rows)
        return self._calls.merged(_describe("average", updates), lambda: average(theta, parts, unheld))

    def compute(self, what: str, function: Callable[[Network], Params]) -> Params:
        """Return tensors that the cloud computes from earlier results, recorded as in ``merge``.

        A method carries such tensors from round to round: the state of an optimizer, control variates.

        Args:
            what: a description, which a resumed run compares.
            function: computes the tensors; its argument is the whole model.
        """
        return self._calls.merged(what, lambda: function(self._network))

    def sample(self, among: Sequence[str], fraction: float) -> list[str]:
        """Draw a fraction of these edges, at least one, in their order. The draw differs after each call."""
        count = max(1, round(fraction * len(among)))
        indices = torch.randperm(len(among), generator=self._calls.draws("sample"))[:count]
        return [among[index] for index in indices.sort().values.tolist()]

    def adopt(
        self,
        theta: Params,
        cuts: Mapping[str, Cut] | None = None,
        *,
        own: Mapping[str, EdgeTensors] | None = None,
    ) -> None:
        """Send each edge ``theta``, or its sub-model of it, to hold from now on.

        Args:
            theta: the global model.
            cuts: edge -> its cut from now on; None is the whole model for all.
            own: edge -> parameters that replace those of ``theta``.
        """
        self._theta, self._cuts = theta, dict(cuts or {})
        fields = self._fields(theta)
        self._add(own, fields)
        self._ask("adopt", fields)

    def evaluate(self) -> list[Update]:
        """Measure each edge's model on its test data. The costs are not booked."""
        return self._ask("evaluate", self._fields(None), counted=False)

    def share(self, share: Share) -> list[Update]:
        """Collect training samples from the edges.

        Raises:
            SettingError: the selection needs a model, and the edges hold none yet.
        """
        if share.choose == "uncertain" and self._theta is None:
            raise SettingError(
                "method.share.choose = 'uncertain' needs a trained model on the edge, but this method shares "
                "samples before training; allowed: 'random', 'balanced'"
            )
        fields = self._fields(None, share=share)
        for edge in self.needs:
            if edge.name in fields and edge.share < share.fraction:
                fields[edge.name]["share"] = replace(share, fraction=edge.share)
        return self._ask("share", fields)

    def statistics(
        self, theta: Params, statistic: Statistic, *, bound: Mapping[str, Cut] | None = None
    ) -> Params:
        """Return the sum over the edges of a statistic of ``theta`` on their training data.

        The sum runs in float64 in the order of the edges, and is recorded as in ``merge``. The edges' own
        models do not change. A model without a layer that the statistic describes needs no call: the result
        is empty.

        Args:
            theta: the global model.
            statistic: the statistic.
            bound: see ``summarize``.

        Raises:
            QuorumError: too few edges sent a usable statistic.
        """
        return self.total(self.summarize(theta, statistic, bound=bound), statistic)

    def summarize(
        self,
        theta: Params,
        statistic: Statistic,
        cuts: Mapping[str, Cut] | None = None,
        *,
        bound: Mapping[str, Cut] | None = None,
        changes: Changes | None = None,
    ) -> list[Update]:
        """Return each edge's statistic of ``theta``, or of its sub-model, on its training data.

        Args:
            theta: the global model.
            statistic: the statistic.
            cuts: edge -> its cut; None is the whole model for all.
            bound: edge -> the cut of the sub-model from which ``theta`` is bound (``average`` with
                ``unheld="zero"``). An edge then receives, and multiplies by, only the blocks of ``theta``.
            changes: the difference of ``theta`` from the model of an earlier call, which an edge that holds
                that model receives instead of ``theta``. If there is a codec, the codec sends differences.

        Raises:
            QuorumError: too few edges sent a usable statistic.
        """
        if not blank(self._network, None, statistic):
            return []
        whole, cuts = blob_of(theta), cuts or {}
        blocks = self._network.blocks((bound or {}).values())
        if blocks:
            whole = self._bound_blob(theta, whole, blocks)
        fields: dict[str, dict[str, Any]] = {}
        for site in self._fleet.names():
            if not self._cuts or site in self._cuts:
                cut = cuts.get(site)
                blob = whole if cut is None else self._cut_blob(theta, whole, cut)
                fields[site] = {"blob": blob, "cut": cut, "statistic": statistic, "blocks": blocks}
                if changes is not None and (self._coding is None or self._coding.is_exact(site)):
                    fields[site] |= changes.fields(site, theta, whole, self._network.shapes(None))

        def flaw(update: Update) -> str | None:
            expected = blank(self._network, cuts.get(update.site), statistic)
            return _statistic_flaw(statistic, expected, update)

        return self._usable(self._ask("summarize", fields, check=flaw), len(fields), holds=False)

    def total(self, updates: Sequence[Update], statistic: Statistic) -> Params:
        """Return the sum of the statistics of updates of equal cuts, recorded as in ``merge``."""
        if not updates:
            return {}
        return self._calls.merged(_describe(statistic.kind, updates), lambda: _total(updates))

    def remember(self) -> int:
        """Save a copy of each edge's model and return the number of this call, for ``choose``.

        Each edge keeps its two newest copies.
        """
        self._ask("remember", self._fields(None))
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
        """Let each edge mix its remembered and its held model, judged on its held-out examples; see ``Task``.

        Without ``mixtures`` each edge returns to its remembered model.

        Args:
            since: the call of ``remember`` that saved the remembered model.
            mixtures: values of a in (1 - a) x remembered + a x held; 0 is always added.
            baseline: the call of ``remember`` that saved the model whose held-out accuracy the choice must
                reach, if the edge still has it; 0 stands for ``since``.
            statistic: a statistic for the merge that the updates carry.
            reply: return the chosen models, as in ``train``.

        Returns:
            The decisions as updates, for ``log``.

        Raises:
            QuorumError: too few updates are usable.
        """
        settings: dict[str, Any] = {"since": since, "mixtures": tuple(mixtures), "baseline": baseline}
        fields = self._fields(None, **settings, statistic=statistic, reply=reply)
        updates = self._ask("choose", fields, check=self._check(statistic) if reply else None)
        return self._usable(updates, len(fields)) if reply else updates

    def lend(self, pool: Samples) -> None:
        """Send each edge the pooled samples whose classes it does not have."""
        fields = {}
        for site in (site for site in self.needs if site.classes):
            foreign = ~torch.isin(pool.labels, torch.tensor(site.classes))
            fields[site.name] = {"blob": encode_samples(pool.select(foreign))}
        self._ask("lend", fields)

    def collect(self) -> list[Update]:
        """Return each edge's model, for the record. The costs are not booked."""
        return self._ask("collect", self._fields(None), counted=False)

    def cut_of(self, site: str) -> Cut | None:
        """Return the edge's current cut; None for the whole model."""
        return self._cuts.get(site)

    def contributions(
        self, updates: Iterable[Update], *, by_examples: bool, own_rows: bool = False
    ) -> Iterator[Contribution]:
        """Yield each update with its sub-model, for ``average``, whose arguments these are."""
        for update in updates:
            cut, params = self._cuts.get(update.site), update.params
            if own_rows:
                classes = [label for label, count in enumerate(update.counts) if count]
                cut, params = rows_of(self._network.structure, cut, params, classes)
            weight = float(update.examples) if by_examples else 1.0
            yield Contribution(params, weight, None if cut is None else self._network.submodel(cut))

    def _ask(
        self,
        kind: TaskKind,
        fields: Mapping[str, Mapping[str, Any]],
        counted: bool = True,
        check: Callable[[Update], str | None] | None = None,
    ) -> list[Update]:
        """Call the edges, and record which of them missed a new model."""
        updates = self._calls.ask(self._fleet, kind, fields, counted, self._quorum, check, self._coding)
        if kind in ("train", "adopt", "choose"):
            given = {site for site, own in fields.items() if own["blob"] and not own.get("continues")}
            self._behind = (self._behind | given) - {update.site for update in updates}
        return updates

    def _add(self, own: Mapping[str, EdgeTensors] | None, fields: dict[str, dict[str, Any]]) -> None:
        """Add each edge's own tensors to the parameters of its task."""
        for site, tensors in (own or {}).items():
            if site in fields:
                shapes = self._network.shapes(self._cuts.get(site))
                fields[site]["blob"] = tensors.beside(fields[site]["blob"], shapes)

    def _fields(
        self, theta: Params | None, only: Sequence[str] | None = None, **settings: Any
    ) -> dict[str, dict[str, Any]]:
        """Return the task fields of each edge: its cut, its sub-model of ``theta`` and ``settings``.

        Edges with equal cuts get the same blob. If ``theta`` is None, only an edge that missed
        the model which it should hold gets a blob. An edge that was absent when the cuts were made gets no
        task.
        """
        given = self._theta if theta is None else theta
        whole: Blob | None = None  # the encoding of ``given``
        blobs: dict[Cut | None, Blob] = {}
        fields = {}
        for site in only or self._fleet.names():
            if self._cuts and site not in self._cuts:
                continue
            cut, blob = self._cuts.get(site), None
            if given is not None and (theta is not None or site in self._behind):
                if cut not in blobs:
                    whole = whole or blob_of(given)
                    blobs[cut] = whole if cut is None else self._cut_blob(given, whole, cut)
                blob = blobs[cut]
            fields[site] = {"blob": blob, "cut": cut, **settings}
        return fields

    def _cut_blob(self, theta: Params, whole: Blob, cut: Cut) -> Blob:
        """Return a sub-model of ``theta``, encoded in ``whole``. It is taken when something reads it."""
        submodel = self._network.submodel(cut)
        key = f"{whole.key} {cut!r}"
        size = encoded_size(self._network.shapes(cut))
        return LazyBlob(lambda: TensorBlob(submodel.take(theta)), size, key, origin=origin_of(whole))

    def _bound_blob(self, theta: Params, whole: Blob, blocks: Blocks) -> Blob:
        """Return the blocks of ``theta``, encoded in ``whole``. They are taken when something reads them."""
        bound = self._network.bound(blocks)
        size = encoded_size(self._network.shapes(None, blocks))
        key = f"{whole.key} {blocks!r}"
        return LazyBlob(lambda: TensorBlob(bound.pack(theta)), size, key, origin=origin_of(whole))

    def _take(self, theta: Params, cut: Cut | None) -> Params:
        return theta if cut is None else self._network.submodel(cut).take(theta)

    def _usable(self, updates: Sequence[Update], total: int, holds: bool = True) -> list[Update]:
        """Return the updates that can be merged, refuse the others, and check the quorum of ``total``.

        Args:
            updates: the answers to the latest call.
            total: the edges that were asked.
            holds: whether an edge holds the model of its update.
        """
        usable, refused = [], []
        for update in updates:
            if why := self._calls.flaws.get(update.site):
                self._calls.refuse(update.site, why)
                if holds:
                    self._behind.add(update.site)
                refused.append(Absence(update.site, why))
            else:
                usable.append(update)
        check_quorum(len(usable), total, self._quorum, "sent a usable update", refused)
        return usable

    def _check(self, statistic: Statistic | None) -> Callable[[Update], str | None]:
        """Return a function that returns why an update cannot be merged, or None if it can."""
        expected: dict[Cut | None, Params] = {}  # of the latest cut

        def flaw(update: Update) -> str | None:
            assert self._theta is not None, "edges send a model only after they got one"
            cut = self._cuts.get(update.site)
            if cut not in expected:
                expected.clear()
                expected[cut] = dict(self._take(self._theta, cut))
            try:
                why = misfit(expected[cut], update.params)
                if why is None and statistic is not None:
                    why = misfit(blank(self._network, cut, statistic), update.statistics)
                    why = why and f"its {statistic.kind} statistic: {why}"
            except (SafetensorError, ValueError) as error:
                return f"its parameters cannot be read: {error}"
            return why

        return flaw


def _statistic_flaw(statistic: Statistic, expected: Params, update: Update) -> str | None:
    """Return why the statistic of an update cannot be added, or None if it can."""
    try:
        sent = update.statistics
    except (SafetensorError, ValueError) as error:
        return f"its statistic cannot be read: {error}"
    if why := misfit(expected, sent):
        return f"its {statistic.kind} statistic: {why}"
    exact = statistic.kind == "features" and statistic.noise is None and statistic.examples is None
    if exact and sent["counts"].tolist() != list(update.counts):
        return f"its {statistic.kind} statistic counts other examples than it trains on"
    return None


def _total(updates: Sequence[Update]) -> Params:
    """Return the sum of the updates' statistics, one update in memory at a time."""
    total: dict[str, Tensor] = {}
    for update in updates:
        for name, value in update.statistics.items():
            total[name] = total[name] + value if name in total else value.double()
    return total


def _describe(merge: str, updates: Sequence[Update]) -> str:
    """Return a description of a merge, with a hash of the names of its sites."""
    names = "\n".join(update.site for update in updates)
    return f"{len(updates)} updates by {merge} ({xxhash.xxh3_64_hexdigest(names.encode())[:8]})"
