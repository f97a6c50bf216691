"""Plan an experiment within limits of seconds, bytes and joules, so that no device is waited for for long.

The forward model is the dry run (``plan_costs``). Each device gets the option that costs the least accuracy
among those whose seconds, bytes, joules and memory are within limits. All devices have the same limit of
seconds: the largest with which the run ends in time. So only the devices that the others would wait for
change. A dry run of the whole plan confirms it; if jitter or absences take longer, the limits are lowered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from sheaf.core.errors import QuorumError, SettingError
from sheaf.core.types import CLOUD
from sheaf.experiments.config import Experiment
from sheaf.experiments.dry_run import dry_run
from sheaf.experiments.memory_check import check_memory
from sheaf.experiments.plan_costs import NEVER, Array, PlanCosts
from sheaf.experiments.plan_options import OWN, Option, with_options
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.time_record import TimeRecord

ATTEMPTS = 6
"""Plans that are confirmed by a dry run, at most; each has lower limits than the one before."""

MARGIN = 0.995
"""Factor by which limits are lowered beyond the excess of the plan before."""

TIGHTER = 0.9
"""Factor by which the deadline of the next plan is lower if jitter makes a device exceed it."""


@dataclass(frozen=True)
class Limits:
    """Limits of a plan; None is no limit.

    Attributes:
        seconds: of the run, above 0.
        bytes: that each device may receive and send, above 0.
        joules: that each device may spend in the run, idle or not, above 0.
    """

    seconds: float | None = None
    bytes: float | None = None
    joules: float | None = None

    def lowered(self, time: TimeRecord, costs: dict[str, SiteCost]) -> Limits | None:
        """Return limits lowered by the excess of a prediction; None if it exceeds none."""
        factors = {name: limit / used for name, limit, used in self.used(time, costs) if used > limit}
        if not factors:
            return None
        return replace(self, **{name: getattr(self, name) * MARGIN * factors[name] for name in factors})

    def used(self, time: TimeRecord, costs: dict[str, SiteCost]) -> list[tuple[str, float, float]]:
        """Return (name, limit, the most that is used) for each limit."""
        edges = [site for site in costs if site != CLOUD]
        used = {
            "seconds": time.spent.seconds,
            "bytes": max(costs[site].bytes_sent + costs[site].bytes_received for site in edges),
            "joules": max(time.sites[site].joules or 0.0 for site in edges),
        }
        return [(name, limit, used[name]) for name, limit in vars(self).items() if limit is not None]


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
        if _fits(setup) and not _gives_up(setup, own) and limits.lowered(own, costs) is None:
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
        if _gives_up(setup, time):
            deadline *= TIGHTER
        elif lower is None:
            return TimePlan(planned, changed, time, costs, own)
        for name, value in vars(lower or limits).items():
            if value is not None:
                aims = replace(aims, **{name: getattr(aims, name) * value / getattr(limits, name)})
    used = max(limits.used(time, costs), key=lambda each: each[2] / each[1], default=("seconds", 0.0, 0.0))
    raise SettingError(
        f"{ATTEMPTS} plans exceed the limit of {used[1]:.4g} {used[0]} by jitter or absences "
        f"(fleet.devices), the latest with {used[2]:.4g}; raise the limit to {_up(used[2])}"
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


def _gives_up(setup: ExperimentSetup, time: TimeRecord) -> bool:
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
        _refuse(table, setup, allowed, aims, limits)
    return fastest


def _refuse(
    table: PlanCosts, setup: ExperimentSetup, allowed: Array, aims: Limits, limits: Limits
) -> NoReturn:
    """Raise an error that names the device and the limit which no option meets, and the nearest value."""
    assert setup.devices is not None
    names = {site: f"{site} ({setup.devices.profiles[site].name})" for site in table.sites}
    remedies = _remedies(setup)
    for number, site in enumerate(table.sites):
        fits = table.fits[:, number]
        if not fits.any():
            raise SettingError(
                f"{names[site]}: no width of its sub-model fits into the device's memory; use a smaller "
                "model, a smaller batch size or another device"
            )
        fewest = float(table.bytes[fits, number].min())
        if aims.bytes is not None and limits.bytes is not None and fewest > aims.bytes:
            raise SettingError(
                f"--data-cap: {names[site]} sends and receives at least {fewest / 1e6:.4g} MB, the cap is "
                f"{limits.bytes / 1e6:.4g} MB; raise it to {_up(fewest / 1e6)}MB{remedies}"
            )
        if not allowed[:, number].any():
            shortest, deadline = table.longest[fits, number].min(), setup.experiment.fleet.deadline
            raise SettingError(
                f"{names[site]}: a call takes at least {shortest:.4g} s, fleet.deadline is {deadline:.4g} s; "
                f"raise fleet.deadline{remedies}"
            )
    fastest = np.where(allowed, table.seconds, np.inf).argmin(axis=0)
    end = table.end(fastest)
    if aims.seconds is not None and limits.seconds is not None and end > aims.seconds:
        seconds = np.take_along_axis(table.seconds, fastest[None], 0)[0]
        slowest = names[table.sites[int(seconds.argmax())]]
        raise SettingError(
            f"--finish-within: the run takes at least {end:.4g} s, {slowest} needs {seconds.max():.4g} s for "
            f"a training, the limit is {limits.seconds:.4g} s; raise it to {_time(end)}{remedies}"
        )
    joules = np.where(allowed, table.idle * end + table.beyond, np.inf).min(axis=0)
    most = int(joules.argmax())
    raise SettingError(
        f"--joules: {names[table.sites[most]]} spends at least {joules[most]:.4g} J, the limit is "
        f"{limits.joules or 0:.4g} J; raise it to {_up(joules[most])}J{remedies}"
    )


def _up(value: float) -> str:
    """Return a number of two or three digits that is above ``value``, with a margin for jitter."""
    return f"{float(f'{1.1 * value:.3g}'):.15g}"


def _time(seconds: float) -> str:
    """Return a duration above ``seconds``, as the option takes it."""
    return f"{_up(seconds)}s" if seconds < 600 else f"{math.ceil(1.1 * seconds / 60)}m"


def _remedies(setup: ExperimentSetup) -> str:
    method = setup.experiment.method
    rounds = getattr(method, "rounds", 1)
    fewer = f", set method.rounds below {rounds}" if rounds > 1 else ""
    cut = "" if hasattr(method, "cut") else ", use a method that cuts (decoupled, heterofl)"
    return f"{fewer}{cut} or give it another device or link"
