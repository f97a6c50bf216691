"""Run a method without training: what it would send and compute, and how long that would take."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from sheaf.core.fleet import Fleet
from sheaf.experiments.clock import timeline_of, with_clock
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.local.dry_run import DryFleet
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.cloud_coding import CloudCoding
from sheaf.runtime.costs import Ledger
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal
from sheaf.runtime.log import Log
from sheaf.runtime.teachers import no_logits
from sheaf.runtime.timeline import BudgetSpent, Timeline
from sheaf.runtime.worker import Worker


def edges_and_cloud(
    setup: ExperimentSetup, calls: Calls, fleet: Fleet, cloud: Worker, cloud_fleet: Fleet
) -> tuple[Edges, Cloud]:
    """Return edges and cloud as a method receives them."""
    settings = setup.experiment.fleet
    coding = CloudCoding(setup.network, settings.download, settings.upload, settings.codecs)
    edges = Edges(calls, fleet, setup.network, setup.needs, settings.quorum, setup.draw, setup.start, coding)
    return edges, Cloud(calls, cloud, cloud_fleet)


def estimate_cost(setup: ExperimentSetup, fleet: type[DryFleet] = DryFleet) -> Ledger:
    """Return the cost of a run, by running its method on a fleet that does not train.

    Args:
        setup: the experiment.
        fleet: the class of the edges' fleet.
    """
    return dry_run(setup, fleet)[0]


def dry_run(setup: ExperimentSetup, fleet: type[DryFleet] = DryFleet) -> tuple[Ledger, Timeline | None]:
    """Return the cost of a run, and its time if its edges stand for devices, without training.

    Args:
        setup: the experiment.
        fleet: the class of the edges' fleet.
    """
    ledger = setup.ledger()
    timeline = timeline_of(setup, ledger)
    with tempfile.TemporaryDirectory() as scratch, Journal(Path(scratch) / "journal", {}) as journal:
        edges, cloud = setup.edges(Path(scratch)), setup.cloud(Path(scratch), teach=no_logits)
        calls = Calls(
            setup.experiment.seed, journal, ledger, timeline=timeline, budget=setup.experiment.fleet.stop_at
        )
        fleets: list[Fleet] = [fleet(edges), DryFleet([cloud])]
        if timeline is not None and setup.devices is not None:
            fleets = [
                with_clock(setup, setup.devices, timeline, each) for each in (fleet(edges), DryFleet([cloud]))
            ]
        sites = edges_and_cloud(setup, calls, fleets[0], cloud, fleets[1])
        with contextlib.suppress(BudgetSpent):
            setup.experiment.method.run(setup.theta, *sites, Log())
        if timeline is not None:
            sites[0].collect()  # as a run does at its end
    return ledger, timeline
