"""The virtual clock of a run whose edges stand for devices with profiles."""

from __future__ import annotations

from sheaf.core.types import CLOUD
from sheaf.experiments.setup import ExperimentSetup
from sheaf.fleets.local.clock import ClockedFleet, SimulatedFleet
from sheaf.profiles.assignment import Devices
from sheaf.runtime.costs import Ledger
from sheaf.runtime.timeline import TimedSite, Timeline


def timeline_of(setup: ExperimentSetup, ledger: Ledger, measured: bool = False) -> Timeline | None:
    """Return the timeline of a run; None without devices and without a budget.

    Args:
        setup: the experiment.
        ledger: of the run; counts the traffic.
        measured: the fleet is a real one.
    """
    devices = setup.devices
    if not measured and devices is None and setup.experiment.fleet.stop_at is None:
        return None
    sites = {site: TimedSite() for site in (*setup.edge_samples, CLOUD)}
    if devices is not None:
        sites = {
            site: TimedSite(profile.name, profile.watts_idle, profile.device.speed("float32"))
            for site, profile in devices.profiles.items()
        }
    of_cloud = ledger.sites[CLOUD]
    return Timeline(
        sites,
        lambda: of_cloud.bytes_sent + of_cloud.bytes_received,
        None if devices is None else devices.presence.away,
        measured,
    )


def with_clock(
    setup: ExperimentSetup, devices: Devices, timeline: Timeline, fleet: SimulatedFleet
) -> ClockedFleet:
    """Return a fleet with the virtual clock."""
    settings = setup.experiment.fleet
    return ClockedFleet(fleet, devices, timeline, settings.deadline, settings.quorum)
