"""Train the sites of a journaled call again, when tensors that the journal does not hold are opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from sheaf.core.fleet import Fleet, ReplayedFleet
from sheaf.core.lazy_blob import LazyBlob
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob

logger = logging.getLogger("sheaf")


class Retraining:
    """One call of train tasks that the journal has the answers to, but not their tensors.

    Args:
        fleet: the sites.
        tasks: all tasks of the call.
    """

    def __init__(self, fleet: Fleet, tasks: Mapping[str, Task]) -> None:
        self._fleet = fleet
        self._tasks = tasks
        self._trained: dict[str, Blob] | None = None

    def model(self, site: str) -> Blob:
        """Return the model of a site. The first access trains all sites of the call, on this thread."""
        if self._trained is None:
            call = next(iter(self._tasks.values())).call
            logger.info("call %d: its models are not in the journal; training them again", call)
            assert isinstance(self._fleet, ReplayedFleet)
            self._trained = self._fleet.train_again(self._tasks)
        return self._trained[site]

    def blob(self, site: str) -> RetrainedBlob:
        """Return the model of a site as a blob that trains when it is opened."""
        return RetrainedBlob(partial(self.model, site))


class RetrainedBlob(LazyBlob):
    """A model that is trained again when it is opened."""
