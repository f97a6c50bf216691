"""A plan within limits of seconds, bytes and joules, on the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from sheaf.core import registry
from sheaf.core.recipe import Share
from sheaf.core.types import CLOUD
from sheaf.experiments.plan_in_time import TimePlan
from sheaf.experiments.plan_limits import Limits
from sheaf.report.fitted_table import Column, FittedTable
from sheaf.report.formatting import (
    MAX_LISTED,
    format_bytes,
    format_count,
    format_duration,
    format_number_of,
    format_percent,
)
from sheaf.report.time_finding import time_finding


def time_plan_table(plan: TimePlan, limits: Limits, every: bool = False) -> Group:
    """Return the prediction of a plan, and the settings and the costs of each device.

    Args:
        plan: the plan.
        limits: its limits.
        every: list each edge, however many there are; otherwise the changed and the busiest.
    """
    experiment, method = plan.experiment, plan.experiment.method
    share = getattr(method, "share", None)
    epochs = method.budget.edge_epochs if hasattr(method, "budget") else None
    fleet = experiment.fleet
    shares = {
        site: format_percent(min(share.fraction, fleet.shares.get(site, 1.0))).replace("\u00a0", " ")
        for site in plan.costs
        if isinstance(share, Share)
    }
    with_width, with_joules = bool(fleet.widths), plan.time.spent.joules is not None
    table = FittedTable(
        [
            Column("device", right=False),
            *([Column("width", 1)] if with_width else []),
            Column("epochs", 1),
            *([Column("images\nsent", 1)] if shares else []),
            Column("codec", 1, right=False),
            Column("busy", 0),
            Column("sent and\nreceived", 0),
            *([Column("joules", 2)] if with_joules else []),
            Column("waits", 0),
            Column("profile", 3, right=False),
        ]
    )
    for site in _listed(plan, every):
        time, cost = plan.time.sites[site], plan.costs[site]
        table.add_row(
            f"{site} *" if site in plan.changed else site,
            *([f"{fleet.widths.get(site, 1.0):.3g}"] if with_width else []),
            "-" if epochs is None else f"{epochs * fleet.work.get(site, 1.0):.3g}",
            *([shares[site]] if shares else []),
            registry.name_of(fleet.codecs.get(site, fleet.upload)),
            format_duration(time.receiving + time.computing + time.sending),
            format_bytes(cost.bytes_sent + cost.bytes_received),
            *([format_count(time.joules or 0.0)] if with_joules else []),
            format_percent(time.idle).replace("\u00a0", " "),
            time.profile,
        )
    hidden = len(plan.time.sites) - 1 - len(_listed(plan, every))
    notes = [f"{format_number_of(hidden, 'device')} more: --all lists each"] if hidden else []
    if plan.changed:
        notes.append(f"*: changed, {format_number_of(len(plan.changed), 'device')}; waits: of the run")
    return Group(
        Text(_answer(plan, limits), style="bold"),
        Text(time_finding(plan.time).replace("\u00a0", " ")),
        table,
        *(Text(note, style="dim") for note in notes),
        Text(),
    )


def _answer(plan: TimePlan, limits: Limits) -> str:
    spent, own = plan.time.spent, plan.own.spent
    edges = [site for site in plan.costs if site != CLOUD]
    most = max(plan.costs[site].bytes_sent + plan.costs[site].bytes_received for site in edges)
    energy = max((plan.time.sites[site].joules or 0.0 for site in edges), default=0.0)
    parts = [f"The run ends after {format_duration(spent.seconds)}"]
    if limits.seconds is not None:
        parts[0] += f" (limit {format_duration(limits.seconds)})"
    cap = "" if limits.bytes is None else f" (cap {format_bytes(limits.bytes)})"
    parts.append(f"a device sends and receives at most {format_bytes(most)}{cap}")
    if spent.joules is not None:
        battery = "" if limits.joules is None else f" (limit {format_count(limits.joules)})"
        parts.append(f"and spends at most {format_count(energy)} joules{battery}")
    answer = ", ".join(parts) + "."
    if not plan.changed:
        return f"{answer} The experiment's own settings are within the limits."
    return f"{answer} With the experiment's own settings, it would end after {format_duration(own.seconds)}."


def _listed(plan: TimePlan, every: bool) -> list[str]:
    edges = [site for site in plan.time.sites if site != CLOUD]
    if every or len(edges) <= MAX_LISTED:
        return edges
    idle = {site: plan.time.sites[site].idle for site in edges}
    first = sorted(edges, key=lambda site: (site not in plan.changed, idle[site]))[:MAX_LISTED]
    return [site for site in edges if site in first]
