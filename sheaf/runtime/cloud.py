"""The cloud, as a method sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError, TrainingError
from sheaf.core.recipe import Recipe, Ridge
from sheaf.core.task import Fleet, TaskKind, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD, Params
from sheaf.core.wire_format import decode_samples
from sheaf.merges.check import misfit
from sheaf.runtime.calls import Calls
from sheaf.runtime.worker import Worker


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
