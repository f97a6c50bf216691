"""What a method sees of the sites: the edges and the cloud.

Behind both stands ``Calls``, which numbers every call, gives it its seeds, journals its answers and books
their cost. Methods therefore hold no checkpoint code: a run that starts again walks through its method from
the top, and calls that were answered before are answered from the journal.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError

from sheaf.blob import Blob
from sheaf.coverage import misfit
from sheaf.cut import Part, SiteNeeds
from sheaf.errors import DataError, QuorumError, SettingError, TrainingError
from sheaf.journal import Journal
from sheaf.ledger import Ledger
from sheaf.network import Network
from sheaf.schema import Merge, Scheme
from sheaf.seeds import generator, seed_for
from sheaf.statistics import blank
from sheaf.types import (
    CLOUD,
    Absence,
    Cut,
    Fleet,
    Params,
    Recipe,
    Ridge,
    Samples,
    Share,
    Statistic,
    Task,
    TaskKind,
    Update,
)
from sheaf.watch import Quiet, Watch
from sheaf.wire import decode_samples, encode_samples
from sheaf.worker import Worker

logger = logging.getLogger("sheaf")


@dataclass(frozen=True)
class Refusal:
    """An answer that was left out: in which call, whose, and why."""

    call: int
    site: str
    why: str


class Calls:
    """Every call of a run, in order.

    Args:
        seed: the run's seed.
        journal: where answers are kept.
        ledger: where their cost is booked.
        watch: told of each call as it is made and answered.
        trained: told of each call that trained: its number, and what was answered.
    """

    def __init__(
        self,
        seed: int,
        journal: Journal,
        ledger: Ledger,
        watch: Watch | None = None,
        trained: Callable[[int, list[Update]], None] | None = None,
    ) -> None:
        self.refused: list[Refusal] = []
        self._seed = seed
        self._journal = journal
        self._ledger = ledger
        self._watch = watch or Quiet()
        self._trained = trained
        self.count = 0

    def ask(
        self,
        fleet: Fleet,
        kind: TaskKind,
        what: Mapping[str, Mapping[str, Any]],
        counted: bool = True,
        quorum: float = 1.0,
    ) -> list[Update]:
        """Asks the sites named in ``what`` and returns the answers in the order of the fleet's names.

        A site that did not answer is refused by name, and the call goes on with the rest.

        Args:
            what: site -> what its ``Task`` says beyond kind, call and seed.
            counted: whether the cost is booked; not where the call serves a comparison or the record.
            quorum: the share of the sites that must answer.

        Raises:
            QuorumError: fewer answered. Who was absent is then forgotten: a run that is resumed asks again.
        """
        self.count += 1
        tasks = {
            site: Task(
                kind=kind,
                call=self.count,
                seed=seed_for(self._seed, "call", self.count, site),
                **what[site],
            )
            for site in fleet.names()
            if site in what
        }
        answers = {site: self._journal.result(site, task) for site, task in tasks.items()}
        settled = {site for site, answer in answers.items() if answer is not None}
        logger.info("call %d: %s, %d sites", self.count, kind, len(tasks))
        open_tasks = {site: task for site, task in tasks.items() if site not in settled}
        if open_tasks:
            self._watch.began(kind, tuple(open_tasks))
        for answer in fleet.run(open_tasks, tasks):
            if answer.site not in open_tasks or answers[answer.site] is not None:
                self.refuse(answer.site, "it answered what it was not asked")
            elif isinstance(answer, Absence):
                answers[answer.site] = answer
                self._watch.absent(answer.site, answer.why)
            elif answer.kind != kind:
                why = f"it answered a {kind} task with {answer.kind!r}"
                answers[answer.site] = Absence(answer.site, why)
                self._watch.absent(answer.site, why)
            else:
                answers[answer.site] = self._journal.record(tasks[answer.site], answer)
                self._watch.answered(answer.site)
        absent = [answer for answer in answers.values() if isinstance(answer, Absence)]
        for site in (site for site, answer in answers.items() if answer is None):
            absent.append(Absence(site, "it gave no answer"))
            self._watch.absent(site, absent[-1].why)
        check_quorum(len(tasks) - len(absent), len(tasks), quorum, f"answered a {kind} call", absent)
        for absence in absent:
            if absence.site not in settled:
                self._journal.record_absence(tasks[absence.site], absence)
            self._note(absence.site, absence.why)
        if any(_goes_by_what_is_there(task) for task in open_tasks.values()):
            self._journal.settle()
        updates = [answer for answer in answers.values() if isinstance(answer, Update)]
        if counted:
            for update in updates:
                self._ledger.book(tasks[update.site], update)
        if self._trained is not None and (trained := [u for u in updates if u.metrics.get("losses")]):
            self._trained(self.count, trained)
        return updates

    def draws(self, purpose: str) -> torch.Generator:
        """For what a method draws before its next call; resumed, it draws the same."""
        return generator(self.seed(purpose))

    def seed(self, *purpose: str) -> int:
        """For the same."""
        return seed_for(self._seed, *purpose, self.count)

    def refuse(self, site: str, why: str) -> None:
        """Notes that a site's answer to the latest call is left out."""
        self._note(site, why)
        self._watch.refused(site, why)

    def _note(self, site: str, why: str) -> None:
        logger.info("call %d: %s is refused: %s", self.count, site, why)
        self.refused.append(Refusal(self.count, site, why))


def _goes_by_what_is_there(task: Task) -> bool:
    """Whether an answer rests on what its site holds or was lent, which the next call may change.

    One that rests on what the task brought and on the site's own data can be had again at any time.
    """
    alone = task.kind in ("train", "adopt", "evaluate") and task.blob is not None
    return not alone or (task.cut is not None and task.cut.other)


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
        return scheme(self._network.anatomy, known, round)

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

    def parts(self, updates: Iterable[Update], *, by_examples: bool) -> Iterator[tuple[Part, Params, float]]:
        """What ``bind`` takes: part, parameters and weight of each update, which is its examples or 1."""
        whole = self._network.anatomy.cut()
        for update in updates:
            part = self._network.part(self._cuts.get(update.site, whole))
            yield part, update.params, float(update.examples) if by_examples else 1.0

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
        return theta if cut is None else self._network.part(cut).take(theta)

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


def check_quorum(there: int, asked: int, quorum: float, did: str, absent: Sequence[Absence]) -> None:
    """Raises where fewer than ``quorum`` of the sites that were ``asked`` did what they were to do.

    Raises:
        QuorumError: says who did not, and why.
    """
    needed = max(1, math.ceil(quorum * asked))
    if there < needed:
        reasons = "; ".join(f"{absence.site}: {absence.why}" for absence in absent)
        raise QuorumError(
            f"{there} of {asked} edges {did}, fleet.quorum asks for {needed}"
            + (f" ({reasons})" if reasons else "")
        )


class Cloud:
    """The cloud, as a method sees it: one Worker over the pool of samples that the edges shared."""

    def __init__(self, calls: Calls, worker: Worker, fleet: Fleet) -> None:
        self._calls = calls
        self._worker = worker
        self._fleet = fleet

    def pool(self, shared: Sequence[Update]) -> Samples:
        """Makes the shared samples the data that the cloud trains on, in the order of the edges.

        Raises:
            DataError: there are none.
        """
        parts = [decode_samples(update.blob) for update in shared if update.blob is not None]
        if not parts:
            raise DataError("no edge shared anything for the cloud to train on")
        pooled = Samples.concat(parts)
        self._worker.pool(pooled)
        return pooled

    def train(self, theta: Params, recipe: Recipe, *, counted: bool = True) -> Params:
        """Trains ``theta`` on the pool by ``recipe``. ``counted`` is off where it serves a comparison only.

        Raises:
            TrainingError: what came out is not finite.
        """
        return self._changed("train", theta, counted, recipe=recipe)

    def restat(self, theta: Params) -> Params:
        """Estimates the batch-norm statistics of ``theta`` anew, on the pool.

        Raises:
            TrainingError: what came out is not finite.
        """
        return self._changed("restat", theta)

    def refit(self, theta: Params, how: Recipe | Ridge) -> Params:
        """Fits the classifier of ``theta`` alone, on the features that the rest gives of the pool.

        Raises:
            TrainingError: what came out is not finite.
        """
        if isinstance(how, Ridge):
            return self._changed("refit", theta, ridge=how)
        return self._changed("refit", theta, recipe=how)

    def evaluate(self, theta: Params) -> list[Update]:
        """Measures ``theta`` on the test data of all classes."""
        return self._calls.ask(self._fleet, "evaluate", {CLOUD: {"blob": Blob.of(theta)}}, counted=False)

    def _changed(self, kind: TaskKind, theta: Params, counted: bool = True, **settings: Any) -> Params:
        what = {CLOUD: {"blob": Blob.of(theta), **settings}}
        (update,) = self._calls.ask(self._fleet, kind, what, counted)
        changed = update.params
        if why := misfit(theta, changed):
            raise TrainingError(f"the cloud's {kind} went wrong: {why}; a smaller learning rate may help")
        return changed
