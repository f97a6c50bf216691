"""The calls of a run: tasks for several sites at once, numbered, seeded, journaled and booked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from sheaf.core.errors import QuorumError
from sheaf.core.fleet import Fleet, ReplayedFleet
from sheaf.core.seeds import generator, seed_for
from sheaf.core.stored_params import StoredParams
from sheaf.core.task import Absence, Task, TaskKind, Update
from sheaf.core.types import Params
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.runtime.costs import Ledger
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import Refusal, Replacement
from sheaf.runtime.retraining import Retraining
from sheaf.runtime.timeline import Budget, Timeline

logger = logging.getLogger("sheaf")


class Calls:
    """The calls of one run, in order.

    Args:
        seed: the run's seed.
        journal: stores the answers.
        ledger: books their costs.
        observer: receives the events of each call.
        trained: called with the number and the answers of each call that trained.
        timeline: receives the times of the answers.
        budget: what the run may spend; see ``Budget``.

    Attributes:
        count: number of the latest call, 0 before the first.
        refused: absences and refused answers, in order.
        flaws: site -> why its answer to the latest call cannot be used.
        counts: site -> the numbers of its training examples of each class, by its latest answer.
        replacements: real device -> its latest decision on a model of the run; see ``Replacement``.
    """

    def __init__(
        self,
        seed: int,
        journal: Journal,
        ledger: Ledger,
        observer: Observer | None = None,
        trained: Callable[[int, list[Update]], None] | None = None,
        timeline: Timeline | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.refused: list[Refusal] = []
        self.counts: dict[str, tuple[int, ...]] = {}
        self.replacements: dict[str, Replacement] = {}
        self._seed = seed
        self._journal = journal
        self._ledger = ledger
        self._observer = observer or NullObserver()
        self._trained = trained
        self._timeline = timeline
        self._budget = budget
        self._merges = 0  # since the latest call
        self.count = 0
        self.flaws: dict[str, str] = {}

    def ask(
        self,
        fleet: Fleet,
        kind: TaskKind,
        fields: Mapping[str, Mapping[str, Any]],
        counted: bool = True,
        quorum: float = 1.0,
        check: Callable[[Update], str | None] | None = None,
        coding: CloudCoding | None = None,
    ) -> list[Update]:
        """Send a task to each site in ``fields`` and return the answers in the order of the fleet's names.

        An absent site is added to ``refused``, and the call continues without it.

        Args:
            fleet: the sites.
            kind: the kind of task.
            fields: site -> the fields of its ``Task`` besides kind, call and seed.
            counted: book the costs. False for a call that serves only a comparison or the record.
            quorum: the fraction of the sites that must answer.
            check: returns why an answer cannot be used, for ``flaws``; called when it arrives.
            coding: codes the parameters of tasks and answers; None: they are sent as float32.

        Raises:
            QuorumError: too few sites answered. Absences of this call are not journaled, so a resumed run
                asks these sites again.
            BudgetSpent: the budget is spent, and the call is ``counted``.
        """
        if counted and self._budget is not None and self._timeline is not None:
            self._budget.check(self._timeline.spent())
        with self._journal.internally():
            check = check or (lambda update: None)
            return self._ask(fleet, kind, fields, counted, quorum, check, coding or CloudCoding())

    def _ask(
        self,
        fleet: Fleet,
        kind: TaskKind,
        fields: Mapping[str, Mapping[str, Any]],
        counted: bool,
        quorum: float,
        check: Callable[[Update], str | None],
        coding: CloudCoding,
    ) -> list[Update]:
        self.count += 1
        self._merges = 0
        tasks = {
            site: Task(
                kind=kind,
                call=self.count,
                seed=seed_for(self._seed, "call", self.count, site),
                **fields[site],
            )
            for site in fleet.names()
            if site in fields
        }
        tasks = coding.encode(tasks, self.merged)
        again = Retraining(fleet, tasks)
        answers = {
            site: self._journal.result(site, task, partial(coding.encode_again, site, task, again.model))
            for site, task in tasks.items()
        }
        journaled = {site for site, answer in answers.items() if answer is not None}
        replayed = [site for site, answer in answers.items() if isinstance(answer, Update)]
        flaws = {site: self._journal.flaw(site, self.count) for site in replayed}
        if replayed and isinstance(fleet, ReplayedFleet):
            fleet.replay({site: tasks[site] for site in replayed}, again.blob)
        logger.info("call %d: %s, %d sites", self.count, kind, len(tasks))
        open_tasks = {site: task for site, task in tasks.items() if site not in journaled}
        if open_tasks:
            self._observer.began(kind, tuple(open_tasks))
            if self._timeline is not None:
                self._timeline.began()
        for answer in fleet.run(open_tasks, tasks):
            if self._timeline is not None:
                answer = self._timeline.placed(answer)
            if answer.site not in open_tasks or answers[answer.site] is not None:
                self.refuse(answer.site, "it answered a task that it was not given")
            elif isinstance(answer, Absence):
                answers[answer.site] = answer
                self._observer.absent(answer.site, answer.why)
            elif answer.kind != kind:
                why = f"it answered a {kind} task with {answer.kind!r}"
                answers[answer.site] = Absence(answer.site, why)
                self._observer.absent(answer.site, why)
            else:
                flaw = flaws[answer.site] = check(coding.decode(tasks[answer.site], answer))
                answers[answer.site] = self._journal.record(tasks[answer.site], answer, flaw)
                self._observer.answered(answer.site)
        absent = [answer for answer in answers.values() if isinstance(answer, Absence)]
        for site in (site for site, answer in answers.items() if answer is None):
            absent.append(Absence(site, "it gave no answer"))
            self._observer.absent(site, absent[-1].why)
        try:
            check_quorum(len(tasks) - len(absent), len(tasks), quorum, f"answered a {kind} call", absent)
        except QuorumError:
            self._journal.keep(answer for answer in answers.values() if isinstance(answer, Update))
            raise
        for absence in absent:
            if absence.site not in journaled:
                self._journal.record_absence(tasks[absence.site], absence)
            self._note(absence.site, absence.why)
        if not all(task.is_repeatable for task in open_tasks.values()):
            self._journal.settle()
        decoded = {
            site: coding.decode(tasks[site], answer)
            for site, answer in answers.items()
            if isinstance(answer, Update)
        }
        coding.settle(tasks, answers, flaws)
        if self._timeline is not None:
            answered = {site: answer for site, answer in answers.items() if answer is not None}
            self._timeline.add(self.count, kind, answered)
        self.flaws = {site: flaw for site, flaw in flaws.items() if flaw is not None}
        updates = [answer for answer in answers.values() if isinstance(answer, Update)]
        for update in updates:
            self.counts[update.site] = update.counts
            if (replacement := update.metrics.get("replacement")) is not None:
                self.replacements[update.site] = Replacement(**replacement)
        if counted:
            for update in updates:
                self._ledger.book(tasks[update.site], update)
        if open_tasks and self._timeline is not None and self._timeline.now:
            self._observer.timed(self._timeline)
        if self._trained is not None and (trained := [u for u in updates if u.metrics.get("losses")]):
            self._trained(self.count, trained)
        return list(decoded.values())

    def merged(self, of: str, merge: Callable[[], Params]) -> StoredParams:
        """Return the result of a merge, which is computed once: a resumed run reads it from the journal.

        Args:
            of: describes the merge and its updates.
            merge: computes the result.
        """
        number, self._merges = self._merges, self._merges + 1
        found = self._journal.merged(self.count, number, of)
        if found is None:
            with self._journal.internally():
                params = merge()
            found = self._journal.record_merged(self.count, number, of, params)
        return found

    def book(self, site: str, train_macs: int) -> None:
        """Book multiply-adds that no task did, such as those of a merge."""
        self._ledger.sites[site].train_macs += train_macs

    def draws(self, purpose: str) -> torch.Generator:
        """Return a generator for draws before the next call. A resumed run draws the same."""
        return generator(self.seed(purpose))

    def seed(self, *purpose: str) -> int:
        """Return a seed for draws before the next call."""
        return seed_for(self._seed, *purpose, self.count)

    def refuse(self, site: str, why: str) -> None:
        """Discard a site's answer to the latest call."""
        self._note(site, why)
        self._observer.refused(site, why)

    def _note(self, site: str, why: str) -> None:
        logger.info("call %d: %s is refused: %s", self.count, site, why)
        self.refused.append(Refusal(call=self.count, site=site, why=why))


def check_quorum(count: int, total: int, quorum: float, action: str, absences: Sequence[Absence]) -> None:
    """Check that at least the fraction ``quorum`` of the asked sites, and at least one, did their task.

    Args:
        count: the sites that did.
        total: the sites that were asked.
        quorum: the fraction that must.
        action: what the sites did, for the message, such as "answered a train call".
        absences: the other sites.

    Raises:
        QuorumError: too few did; the message gives the reason for each.
    """
    needed = max(1, math.ceil(quorum * total))
    if count < needed:
        reasons = "; ".join(f"{absence.site}: {absence.why}" for absence in absences)
        raise QuorumError(
            f"{count} of {total} edges {action}, but fleet.quorum = {quorum:g} needs {needed}; "
            "resume the run when more edges are available" + (f" ({reasons})" if reasons else "")
        )
