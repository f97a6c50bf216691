"""The cloud's interface for methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError, TrainingError
from sheaf.core.fleet import Fleet
from sheaf.core.lazy_blob import LazyBlob, TensorBlob
from sheaf.core.recipe import FromStatistics, Recipe, Ridge, StatisticKind
from sheaf.core.stored_params import StoredParams, blob_of
from sheaf.core.task import TaskKind, Update, named_statistic
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD, Params
from sheaf.data.shared_samples import decode_shared
from sheaf.merges.check import misfit
from sheaf.runtime.calls import Calls
from sheaf.runtime.edge_tensors import CONSTANT
from sheaf.runtime.teachers import macs
from sheaf.runtime.worker import Worker
from sheaf.training.step import distils


class Cloud:
    """The cloud: a worker that trains on the samples that the edges shared.

    Args:
        calls: the run's calls.
        worker: the cloud's worker.
        fleet: a fleet of only this worker.
    """

    def __init__(self, calls: Calls, worker: Worker, fleet: Fleet) -> None:
        self._calls = calls
        self._worker = worker
        self._fleet = fleet

    def pool(self, shared: Sequence[Update]) -> Samples:
        """Make the shared samples the cloud's training data, in the order of the edges, and return them.

        Raises:
            DataError: no edge shared any, or image files decode to other pixels than on an edge.
        """
        data = self._worker.data
        blobs = [update.blob for update in shared if update.blob is not None]
        parts = [decode_shared(blob, data.shape, data.bits) for blob in blobs]
        if not parts:
            raise DataError("no edge shared samples, so the cloud has nothing to train on")
        pooled = Samples.concat(parts)
        self._worker.pool(pooled)
        return pooled

    def train(
        self,
        theta: Params,
        recipe: Recipe,
        *,
        counted: bool = True,
        teachers: Sequence[Update] = (),
        cuts: Mapping[str, Cut] | None = None,
    ) -> Params:
        """Train ``theta`` on the pool and return the result.

        If the recipe's loss is ``distillation`` and the cloud has public samples, it trains on these instead.

        Args:
            theta: the start parameters.
            recipe: how to train.
            counted: book the cost. False for training that serves only a comparison.
            teachers: the models that ``theta`` learns from if the recipe's loss is ``distillation``.
            cuts: teacher -> its cut; None: each is of the whole model.

        Raises:
            TrainingError: the result is not finite.
        """
        if not (teachers and distils(recipe)):
            return self._call("train", theta, counted, recipe=recipe)
        of = {update.site: None if cuts is None else cuts[update.site] for update in teachers}
        teacher = self._calls.merged(
            f"logits of {len(teachers)} models",
            lambda: {
                "teacher": self._worker.teacher((of[update.site], update.params) for update in teachers)
            },
        )
        if counted:
            self._calls.book(CLOUD, macs(self._worker.network, of.values(), len(self._worker.unlabelled)))
        key = f"{blob_of(theta).key} {teacher.blob.key}"
        blob = LazyBlob(lambda: TensorBlob({**theta, CONSTANT + "teacher": teacher["teacher"]}), key=key)
        return self._call("train", theta, counted, recipe=recipe, blob=blob)

    def restat(self, theta: Params, sums: Params | None = None) -> Params:
        """Re-estimate the batch-norm statistics of ``theta``.

        Args:
            theta: the parameters.
            sums: the edges' ``batch_norm`` statistic of ``theta``; None: estimate on the pool.

        Raises:
            TrainingError: the result is not finite.
        """
        if sums is None:
            return self._call("restat", theta)
        if not sums:  # no batch norm
            return theta
        return self._call("restat", theta, blob=_with_statistic(theta, "batch_norm", sums))

    def refit(
        self, theta: Params, how: Recipe | Ridge | FromStatistics, moments: Params | None = None
    ) -> Params:
        """Fit only the classifier of ``theta``, by gradient descent or regression.

        Args:
            theta: the parameters.
            how: on the pool's features by a ``Recipe`` or ``Ridge``, or on ``moments``.
            moments: the edges' ``features`` statistic of ``theta``, for ``FromStatistics``.

        Raises:
            TrainingError: the result is not finite.
        """
        if isinstance(how, FromStatistics):
            assert moments is not None
            blob = _with_statistic(theta, "features", moments)
            return self._call("refit", theta, refit=how, blob=blob)
        if isinstance(how, Ridge):
            return self._call("refit", theta, refit=how)
        return self._call("refit", theta, recipe=how)

    def evaluate(self, theta: Params) -> list[Update]:
        """Measure ``theta`` on the test data of all classes. The cost is not booked."""
        return self._calls.ask(self._fleet, "evaluate", {CLOUD: {"blob": blob_of(theta)}}, counted=False)

    def _call(self, kind: TaskKind, theta: Params, counted: bool = True, **settings: Any) -> Params:
        fields = {CLOUD: {"blob": blob_of(theta), **settings}}
        opened: dict[str, Tensor] = {}  # empty if the journal has the answer

        def check(update: Update) -> str | None:
            opened.update(update.params)
            return misfit(theta, opened)

        (update,) = self._calls.ask(self._fleet, kind, fields, counted, check=check)
        if why := self._calls.flaws.get(CLOUD):
            raise TrainingError(f"the cloud's {kind} failed: {why}; try a smaller learning rate")
        blob = update.blob
        assert blob is not None
        return StoredParams(blob, opened or None)


def _with_statistic(theta: Params, kind: StatisticKind, values: Params) -> Blob:
    """Return parameters with a statistic beside them; both are opened when a worker reads the blob."""
    key = f"{blob_of(theta).key} {blob_of(values).key}"
    return LazyBlob(lambda: TensorBlob({**theta, **named_statistic(kind, values)}), key=key)
