"""Plan an experiment within limits of seconds, bytes and joules, so that no device is waited for for long.

The forward model is the dry run (``plan_costs``). Each device gets the option that costs the least accuracy
among those whose seconds, bytes, joules and memory are within limits. All devices have the same limit of
seconds: the largest with which the run ends in time. So only the devices that the others would wait for
change. A dry run of the whole plan confirms it; if jitter or absences take longer, the limits are lowered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sheaf.core.errors import QuorumError, SettingError
from sheaf.experiments.config import Experiment
from sheaf.experiments.dry_run import dry_run
from sheaf.experiments.memory_check import check_memory
from sheaf.experiments.plan_costs import NEVER, Array, PlanCosts
from sheaf.experiments.plan_limits import Limits
from sheaf.experiments.plan_options import OWN, Option, with_options
from sheaf.experiments.plan_refusals import above, refuse
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.time_record import TimeRecord

ATTEMPTS = 6
"""Plans that are confirmed by a dry run, at most; each has lower limits than the one before."""

TIGHTER = 0.9
"""Factor by which the deadline of the next plan is lower if jitter makes a device exceed it."""


@dataclass(frozen=True)
class TimePlan:
    """A plan, with the prediction of its run.

    Attributes:
        experiment: the planned experiment; the given one if it is within the limits.
        changed: edge -> its option, where it is not the experiment's own.
        time: the predicted time of the run.
        costs: site -> its predicted cost.
        own: the predicted time of the given experiment.
    """

    experiment: Experiment
    changed: dict[str, Option]
    time: TimeRecord
    costs: dict[str, SiteCost]
    own: TimeRecord


def plan_in_time(experiment: Experiment, limits: Limits, data: Path | None = None) -> TimePlan:
    """Return the experiment with the settings of its devices lowered as far as the limits need it.

    Args:
        experiment: its settings, with ``fleet.devices``.
        limits: at least one.
        data: the directory in which named datasets are looked for first.

    Raises:
        SettingError: there are no devices, their power is unknown, or no plan is within the limits.
    """
    if experiment.fleet.devices is None:
        raise SettingError(
            "a plan in time needs devices with a virtual clock: set fleet.devices, as in "
            "--set 'fleet.devices.mix={\"raspberry-pi-4+lte\" = 1}'"
        )
    setup = prepare(experiment, data)
    assert setup.devices is not None
    if limits.joules is not None:
        for site in setup.edge_samples:
            if setup.devices.profiles[site].watts_idle is None:
                raise SettingError(
                    f"--joules: the power of {site}'s device {setup.devices.profiles[site].name} is unknown; "
                    "add watts_idle and watts_busy to its profile"
                )
    try:
        own, costs = _predict(setup)
        if _fits(setup) and not _givesabove(setup, own) and limits.lowered(own, costs) is None:
            return TimePlan(experiment, {}, own, costs, own)
    except QuorumError:  # too many devices exceed fleet.deadline
        own, costs = _predict(setup, NEVER)
    time, deadline = own, experiment.fleet.deadline
    table, aims = PlanCosts(setup), limits
    for _ in range(ATTEMPTS):
        chosen = _choose(table, setup, aims, deadline, limits)
        options = {
            site: table.options[number] for site, number in zip(table.sites, chosen.tolist(), strict=True)
        }
        changed = {site: option for site, option in options.items() if option != OWN}
        planned = with_options(setup, changed)
        try:
            time, costs = _predict(replace(setup, experiment=planned))
        except QuorumError:
            deadline *= TIGHTER
            continue
        lower = limits.lowered(time, costs)
        if _givesabove(setup, time):
            deadline *= TIGHTER
        elif lower is None:
            return TimePlan(planned, changed, time, costs, own)
        for name, value in vars(lower or limits).items():
            if value is not None:
                aims = replace(aims, **{name: getattr(aims, name) * value / getattr(limits, name)})
    used = max(limits.used(time, costs), key=lambda each: each[2] / each[1], default=("seconds", 0.0, 0.0))
    raise SettingError(
        f"{ATTEMPTS} plans exceed the limit of {used[1]:.4g} {used[0]} by jitter or absences "
        f"(fleet.devices), the latest with {used[2]:.4g}; raise the limit to {above(used[2])}"
    )


def _fits(setup: ExperimentSetup) -> bool:
    """Return whether each edge's training fits into the memory of its device."""
    try:
        check_memory(setup)
    except SettingError:
        return False
    return True


def _predict(setup: ExperimentSetup, deadline: float | None = None) -> tuple[TimeRecord, dict[str, SiteCost]]:
    fleet = setup.experiment.fleet
    fleet = replace(fleet, stop_at=None, deadline=deadline or fleet.deadline)
    unlimited = replace(setup.experiment, fleet=fleet)
    ledger, timeline = dry_run(replace(setup, experiment=unlimited))
    assert timeline is not None
    return timeline.record([]), ledger.sites


def _givesabove(setup: ExperimentSetup, time: TimeRecord) -> bool:
    """Return whether the cloud gives up a device that is always connected: fleet.deadline is over."""
    assert setup.devices is not None
    return setup.devices.presence.always and any(call.absent for call in time.calls)


def _choose(table: PlanCosts, setup: ExperimentSetup, aims: Limits, deadline: float, limits: Limits) -> Array:
    """Return the (N) numbers of the edges' options.

    Args:
        table: the costs of the options.
        setup: the experiment.
        aims: within which the options are chosen.
        deadline: seconds of a device's longest call.
        limits: those of the user, for messages.

    Raises:
        SettingError: no options are within ``aims``.
    """
    end = np.inf if aims.seconds is None else aims.seconds
    allowed = table.fits & (table.longest <= deadline)
    if aims.bytes is not None:
        allowed &= table.bytes <= aims.bytes

    def choose(seconds: float) -> Array | None:
        """Return the options of at most so many seconds that end in time; None if there are none."""
        until = 0.0
        for _ in range(len(table.options)):  # joules of waiting follow from the end, and the end from options
            usable = allowed & (table.seconds <= seconds)
            if aims.joules is not None:
                usable &= table.idle * until + table.beyond <= aims.joules
            if not usable.any(axis=0).all():
                return None
            chosen = usable.argmax(axis=0)
            last, until = until, table.end(chosen)
            if until <= last or aims.joules is None:
                break
        return chosen if until <= end else None

    least = np.where(allowed, table.seconds, np.inf)
    candidates = np.unique(table.seconds[allowed & (table.seconds >= least.min(axis=0).max())])
    best, low, high = None, 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        chosen = choose(float(candidates[middle]))
        if chosen is None:
            high = middle
        else:
            best, low = chosen, middle + 1
    if best is not None:
        return best
    fastest: Array = least.argmin(axis=0)
    until = table.end(fastest)
    joules = np.take_along_axis(table.idle * until + table.beyond, fastest[None], 0)
    enough = aims.joules is None or bool((joules <= aims.joules).all())
    if not (allowed.any(axis=0).all() and until <= end and enough):
        refuse(table, setup, allowed, aims, limits)
    return fastest
