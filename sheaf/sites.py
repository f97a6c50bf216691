"""What a method sees of the sites: the edges and the cloud.

Behind both stands ``Calls``, which numbers every call, gives it its seeds, journals its answers and books
their cost. Methods therefore hold no checkpoint code: a run that starts again walks through its method from
the top, and calls that were answered before are answered from the journal.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sheaf.blob import Blob
from sheaf.coverage import misfit
from sheaf.errors import DataError, QuorumError, TrainingError
from sheaf.journal import Journal
from sheaf.ledger import Ledger
from sheaf.seeds import seed_for
from sheaf.types import Fleet, Params, Recipe, Samples, Task, Update
from sheaf.wire import decode_samples
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
        began: told of each call before it is made: what is asked, of how many sites.
    """

    def __init__(
        self,
        seed: int,
        journal: Journal,
        ledger: Ledger,
        began: Callable[[str, int], None] | None = None,
    ) -> None:
        self.refused: list[Refusal] = []
        self._seed = seed
        self._journal = journal
        self._ledger = ledger
        self._began = began
        self._count = 0

    def ask(
        self,
        fleet: Fleet,
        kind: str,
        params: Params | None = None,
        counted: bool = True,
        **what: Any,
    ) -> list[Update]:
        """Asks every site of ``fleet`` and returns the answers in the order of its names.

        With ``counted`` off, the cost is not booked: the call serves a comparison or the record, not the
        method.
        """
        self._count += 1
        blob = None if params is None else Blob.of(params)
        tasks = {
            site: Task(kind, self._count, seed_for(self._seed, "call", self._count, site), blob, **what)  # type: ignore[arg-type]
            for site in fleet.names()
        }
        answers = {site: self._journal.result(site, task) for site, task in tasks.items()}
        logger.info("call %d: %s, %d sites", self._count, kind, len(tasks))
        open_tasks = {site: task for site, task in tasks.items() if answers[site] is None}
        if open_tasks and self._began is not None:
            self._began(kind, len(open_tasks))
        for update in fleet.run(open_tasks):
            answers[update.site] = self._journal.record(tasks[update.site], update)
        updates = [update for update in answers.values() if update is not None]
        if counted:
            for update in updates:
                self._ledger.book(tasks[update.site], update)
        return updates

    def refuse(self, site: str, why: str) -> None:
        """Notes that a site's answer to the latest call is left out."""
        logger.info("call %d: %s is refused: %s", self._count, site, why)
        self.refused.append(Refusal(self._count, site, why))


class Edges:
    """The edges, as a method sees them.

    Args:
        calls: the run's calls.
        fleet: where the edges are.
        quorum: the share of the edges whose answer a call needs.
    """

    def __init__(self, calls: Calls, fleet: Fleet, quorum: float) -> None:
        self._calls = calls
        self._fleet = fleet
        self._needed = max(1, math.ceil(quorum * len(fleet.names())))
        self._model: Params | None = None

    def train(self, theta: Params | None, recipe: Recipe, *, reply: bool = True) -> list[Update]:
        """Each edge trains ``theta`` (None: what it holds) by ``recipe``, and holds the result.

        With ``reply``, returns the usable answers: an update that is not finite or not of the model's shape
        is refused by name.

        Raises:
            QuorumError: too few answers were usable.
        """
        if theta is not None:
            self._model = theta
        updates = self._calls.ask(self._fleet, "train", theta, recipe=recipe, reply=reply)
        return self._usable(updates) if reply else updates

    def adopt(self, theta: Params) -> None:
        """Each edge holds ``theta`` from now on."""
        self._model = theta
        self._calls.ask(self._fleet, "adopt", theta)

    def evaluate(self) -> list[Update]:
        """Each edge measures what it holds on its test data; not counted, as it is no part of a method."""
        return self._calls.ask(self._fleet, "evaluate", counted=False)

    def share(self, fraction: float) -> list[Update]:
        """Each edge sends up ``fraction`` of its training samples."""
        return self._calls.ask(self._fleet, "share", fraction=fraction)

    def collect(self) -> list[Update]:
        """Each edge sends up what it holds, for the record; not counted."""
        return self._calls.ask(self._fleet, "collect", counted=False)

    def _usable(self, updates: Sequence[Update]) -> list[Update]:
        assert self._model is not None, "edges answer with a model only after they were given one"
        usable, refused = [], []
        for update in updates:
            if why := misfit(self._model, update.params):
                self._calls.refuse(update.site, why)
                refused.append(f"{update.site}: {why}")
            else:
                usable.append(update)
        if len(usable) < self._needed:
            raise QuorumError(
                f"{len(usable)} of {len(self._fleet.names())} edges sent a usable update, fleet.quorum asks "
                f"for {self._needed}" + (f" ({'; '.join(refused)})" if refused else "")
            )
        return usable


class Cloud:
    """The cloud, as a method sees it: one Worker over the pool of samples that the edges shared."""

    def __init__(self, calls: Calls, worker: Worker, fleet: Fleet) -> None:
        self._calls = calls
        self._worker = worker
        self._fleet = fleet

    def pool(self, shared: Sequence[Update]) -> None:
        """Makes the shared samples the data that the cloud trains on, in the order of the edges.

        Raises:
            DataError: there are none.
        """
        parts = [decode_samples(update.blob) for update in shared if update.blob is not None]
        if not parts:
            raise DataError("no edge shared anything for the cloud to train on")
        self._worker.pool(Samples.concat(parts))

    def train(self, theta: Params, recipe: Recipe, *, counted: bool = True) -> Params:
        """Trains ``theta`` on the pool by ``recipe``. ``counted`` is off where it serves a comparison only.

        Raises:
            TrainingError: what came out is not finite.
        """
        (update,) = self._calls.ask(self._fleet, "train", theta, counted, recipe=recipe)
        trained = update.params
        if why := misfit(theta, trained):
            raise TrainingError(f"the cloud's training went wrong: {why}; a smaller learning rate may help")
        return trained

    def evaluate(self, theta: Params) -> list[Update]:
        """Measures ``theta`` on the test data of all classes."""
        return self._calls.ask(self._fleet, "evaluate", theta, counted=False)
