"""Every call of a run: numbered, seeded, journaled, and its cost booked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sheaf.core.errors import QuorumError
from sheaf.core.seeds import generator, seed_for
from sheaf.core.task import Absence, Fleet, Task, TaskKind, Update
from sheaf.runtime.costs import Ledger
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import Refusal

logger = logging.getLogger("sheaf")


class Calls:
    """Every call of a run, in order.

    Args:
        seed: the run's seed.
        journal: where answers are kept.
        ledger: where their cost is booked.
        observer: told of each call as it is made and answered.
        trained: told of each call that trained: its number, and what was answered.
    """

    def __init__(
        self,
        seed: int,
        journal: Journal,
        ledger: Ledger,
        observer: Observer | None = None,
        trained: Callable[[int, list[Update]], None] | None = None,
    ) -> None:
        self.refused: list[Refusal] = []
        self._seed = seed
        self._journal = journal
        self._ledger = ledger
        self._observer = observer or NullObserver()
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
            self._observer.began(kind, tuple(open_tasks))
        for answer in fleet.run(open_tasks, tasks):
            if answer.site not in open_tasks or answers[answer.site] is not None:
                self.refuse(answer.site, "it answered what it was not asked")
            elif isinstance(answer, Absence):
                answers[answer.site] = answer
                self._observer.absent(answer.site, answer.why)
            elif answer.kind != kind:
                why = f"it answered a {kind} task with {answer.kind!r}"
                answers[answer.site] = Absence(answer.site, why)
                self._observer.absent(answer.site, why)
            else:
                answers[answer.site] = self._journal.record(tasks[answer.site], answer)
                self._observer.answered(answer.site)
        absent = [answer for answer in answers.values() if isinstance(answer, Absence)]
        for site in (site for site, answer in answers.items() if answer is None):
            absent.append(Absence(site, "it gave no answer"))
            self._observer.absent(site, absent[-1].why)
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
        self._observer.refused(site, why)

    def _note(self, site: str, why: str) -> None:
        logger.info("call %d: %s is refused: %s", self.count, site, why)
        self.refused.append(Refusal(call=self.count, site=site, why=why))


def _goes_by_what_is_there(task: Task) -> bool:
    """Whether an answer rests on what its site holds or was lent, which the next call may change.

    One that rests on what the task brought and on the site's own data can be had again at any time.
    """
    alone = task.kind in ("train", "adopt", "evaluate") and task.blob is not None
    return not alone or (task.cut is not None and task.cut.other)


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
