"""The edges' interface for methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.fleet import Fleet
from sheaf.core.recipe import Recipe, Share, Statistic
from sheaf.core.task import Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.core.wire_format import encode_samples
from sheaf.merges.average import Contribution, average
from sheaf.merges.merge import Merge
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.runtime.edge_calls import EdgeCalls
from sheaf.runtime.edge_data import collect_samples, summarize, total
from sheaf.runtime.edge_merges import contributions, merge_by_rule
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.held_models import HeldModels
from sheaf.submodels.scheme import Scheme, SiteNeeds
from sheaf.training.network import Network


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
        self._network = network
        self._drawn = drawn
        self._held = HeldModels(network, fleet, start)
        self._edge_calls = EdgeCalls(calls, fleet, self._held, quorum, coding)

    @property
    def theta(self) -> Params | None:
        """The global model that the edges were sent last; None before the first."""
        return self._held.theta

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
            own: edge -> constants of the recipe's loss, parameters that replace those of ``theta``, and the
                state with which the optimizer continues (``training/optimizer_state.py``). Who continues an
                optimizer also asks for its state, so that the edge trains by itself.

        Returns:
            The usable updates; without ``reply``, updates without parameters.

        Raises:
            QuorumError: too few updates are usable.
        """
        if own_start and (theta is None or cuts is not None):
            raise ValueError("own_start needs theta and no cuts")
        if theta is not None:
            self._held.hold(theta, cuts)
        elif cuts is not None:
            raise ValueError("cuts need theta: an edge that continues keeps its cut")
        settings = {"recipe": recipe, "outliers": outliers, "reply": reply, "statistic": statistic}
        fields = self._held.fields(theta, only, **settings)
        for edge in self.needs:
            if edge.name in fields and edge.work < 1:
                fields[edge.name]["recipe"] = replace(recipe, work=edge.work * recipe.work)
        if own_start:
            for site in fields:
                fields[site]["blob"] = Blob.of(self._drawn(self._calls.seed("start", site)))
        if theta is not None:
            self._held.begin_from_start(theta, fields)
        self._held.add(own, fields)
        return self._edge_calls.ask_for_models("train", fields, statistic, reply)

    def merge(self, merge: Merge, theta: Params, updates: Sequence[Update]) -> Params:
        """Merge usable updates of the whole model by a rule (``merges/rules/``).

        The result is recorded: a resumed run does not merge again, and the updates' files can be deleted. A
        rule with a method ``fit_layer``, such as ``regmean_plus_plus``, fits one layer after another to a
        statistic that the edges compute of the model merged so far, in a call for each layer.
        """
        return merge_by_rule(self._edge_calls, merge, theta, updates)

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
        return self._edge_calls.merged("average", updates, lambda: average(theta, parts, unheld))

    def compute(self, what: str, function: Callable[[Network], Params]) -> Params:
        """Return tensors that the cloud computes from earlier results, recorded as in ``merge``.

        A method carries such tensors from round to round: the state of an optimizer, control variates.

        Args:
            what: a description, which a resumed run compares.
            function: computes the tensors; its argument is the whole model.
        """
        return self._calls.merged(what, lambda: function(self._network))

    def seed(self, what: str) -> int:
        """Return a seed for draws that later calls share. It differs after each call."""
        return self._calls.seed(what)

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
        self._held.hold(theta, cuts)
        fields = self._held.fields(theta)
        self._held.add(own, fields)
        self._edge_calls.ask("adopt", fields)

    def evaluate(self) -> list[Update]:
        """Measure each edge's model on its test data. The costs are not booked."""
        return self._edge_calls.ask("evaluate", self._held.fields(None), counted=False)

    def share(self, share: Share) -> list[Update]:
        """Collect training samples from the edges.

        Raises:
            SettingError: the selection needs a model, and the edges hold none yet.
        """
        return collect_samples(self._edge_calls, share, self.needs)

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
    ) -> list[Update]:
        """Return each edge's statistic of ``theta``, or of its sub-model, on its training data.

        Args:
            theta: the global model.
            statistic: the statistic.
            cuts: edge -> its cut; None is the whole model for all.
            bound: edge -> the cut of the sub-model from which ``theta`` is bound (``average`` with
                ``unheld="zero"``). An edge then receives, and multiplies by, only the blocks of ``theta``.

        Raises:
            QuorumError: too few edges sent a usable statistic.
        """
        return summarize(self._edge_calls, theta, statistic, cuts, bound=bound)

    def total(self, updates: Sequence[Update], statistic: Statistic) -> Params:
        """Return the sum of the statistics of updates of equal cuts, recorded as in ``merge``."""
        return total(self._edge_calls, updates, statistic)

    def remember(self) -> int:
        """Save a copy of each edge's model and return the number of this call, for ``choose``.

        Each edge keeps its two newest copies.
        """
        self._edge_calls.ask("remember", self._held.fields(None))
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
        fields = self._held.fields(None, **settings, statistic=statistic, reply=reply)
        return self._edge_calls.ask_for_models("choose", fields, statistic, reply)

    def lend(self, pool: Samples) -> None:
        """Send each edge the pooled samples whose classes it does not have."""
        fields = {}
        for site in (site for site in self.needs if site.classes):
            foreign = ~torch.isin(pool.labels, torch.tensor(site.classes))
            fields[site.name] = {"blob": encode_samples(pool.select(foreign))}
        self._edge_calls.ask("lend", fields)

    def collect(self) -> list[Update]:
        """Return each edge's model, for the record. The costs are not booked."""
        return self._edge_calls.ask("collect", self._held.fields(None), counted=False)

    def cut_of(self, site: str) -> Cut | None:
        """Return the edge's current cut; None for the whole model."""
        return self._held.cuts.get(site)

    def contributions(
        self, updates: Iterable[Update], *, by_examples: bool, own_rows: bool = False
    ) -> Iterator[Contribution]:
        """Yield each update with its sub-model, for ``average``, whose arguments these are."""
        return contributions(self._held, updates, by_examples=by_examples, own_rows=own_rows)
