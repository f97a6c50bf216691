"""The pieces that a method runs on, without a run's folder: to call a method by hand, or to write one."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sheaf.api.given import Changes, experiment_of
from sheaf.core.types import CLOUD, Params
from sheaf.experiments.config import Experiment
from sheaf.experiments.dry_run import edges_and_cloud
from sheaf.experiments.execution import configure_torch
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal
from sheaf.runtime.log import Log
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Row


class Sites:
    """Start weights, edges, cloud and log, as ``method.run`` takes them.

    They unpack in this order: ``ECAvg().run(*sites)``. The sites keep their models in a temporary folder,
    which is removed when the object is closed, or when nothing refers to edges and cloud any more.

    Args:
        setup: the experiment with its data and model.

    Attributes:
        theta: the initial parameters.
        fleet: the edges.
        cloud: the cloud.
        log: the log, which receives measurements.
    """

    def __init__(self, setup: ExperimentSetup) -> None:
        configure_torch(setup)
        folder = Path(tempfile.mkdtemp(prefix="sheaf-"))
        journal = Journal(folder / "journal", {})
        self._ledger = setup.ledger()
        self.theta: Params = setup.theta
        self.log = Log()
        calls = Calls(setup.experiment.seed, journal, self._ledger, NullObserver(), self.log.trained)
        self._finalizer = weakref.finalize(calls, _close, journal, folder)  # edges and cloud refer to calls
        together = setup.experiment.fleet.together
        fleet = LocalFleet(setup.edges(folder / "sites"), None, together)
        worker = setup.cloud(folder / "sites")
        self.fleet: Edges
        self.cloud: Cloud
        self.fleet, self.cloud = edges_and_cloud(setup, calls, fleet, worker, LocalFleet([worker]))

    def __iter__(self) -> Iterator[Any]:
        return iter((self.theta, self.fleet, self.cloud, self.log))

    @property
    def rows(self) -> list[Row]:
        """The measurements, in order."""
        return self.log.rows

    @property
    def cost(self) -> Mapping[str, SiteCost]:
        """The cost of each site until now."""
        return self._ledger.sites

    def close(self) -> None:
        """Remove the temporary folder."""
        self._finalizer()

    def __enter__(self) -> Sites:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sites: {', '.join(site for site in self.cost if site != CLOUD)} and the cloud>"


def sites(
    experiment: str | Path | Experiment = "default",
    *,
    data: Any = None,
    model: Any = None,
    partition: Any = None,
    seed: int | None = None,
    changes: Changes = (),
    root: str | Path | None = None,
) -> Sites:
    """Return the edges, the cloud, the start weights and a log, made from data and model.

    Args:
        experiment: as in ``run``; likewise the other arguments. Its method is not used.

    Raises:
        SheafError: any error that the caller can fix.
    """
    base = None if root is None else Path(root)
    given: dict[str, Any] = {"data": data, "model": model, "partition": partition, "seed": seed, "root": base}
    return Sites(prepare(experiment_of(experiment, changes=changes, **given), base))


def _close(journal: Journal, folder: Path) -> None:
    journal.__exit__()
    shutil.rmtree(folder, ignore_errors=True)
