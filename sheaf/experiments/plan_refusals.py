"""Why no plan is within the limits: the device, the limit, and the nearest value that can be met."""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np

from sheaf.core.errors import SettingError
from sheaf.experiments.plan_costs import Array, PlanCosts
from sheaf.experiments.plan_limits import Limits
from sheaf.experiments.setup import ExperimentSetup


def refuse(
    table: PlanCosts, setup: ExperimentSetup, allowed: Array, aims: Limits, limits: Limits
) -> NoReturn:
    """Raise an error that names the device and the limit that no option meets, and the nearest value.

    Args:
        table: the costs of the options.
        setup: the experiment.
        allowed: (O, N) whether an option of an edge is within its device's memory, bytes and deadline.
        aims: the limits that the options exceed.
        limits: those of the user, for messages.

    Raises:
        SettingError: always.
    """
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
                f"{limits.bytes / 1e6:.4g} MB; raise it to {above(fewest / 1e6)}MB{remedies}"
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
        f"{limits.joules or 0:.4g} J; raise it to {above(joules[most])}J{remedies}"
    )


def above(value: float) -> str:
    """Return a number of two or three digits that is above ``value``, with a margin for jitter."""
    return f"{float(f'{1.1 * value:.3g}'):.15g}"


def _time(seconds: float) -> str:
    """Return a duration above ``seconds``, as the option takes it."""
    return f"{above(seconds)}s" if seconds < 600 else f"{math.ceil(1.1 * seconds / 60)}m"


def _remedies(setup: ExperimentSetup) -> str:
    method = setup.experiment.method
    rounds = getattr(method, "rounds", 1)
    fewer = f", set method.rounds below {rounds}" if rounds > 1 else ""
    cut = "" if hasattr(method, "cut") else ", use a method that cuts (decoupled, heterofl)"
    return f"{fewer}{cut} or give it another device or link"
