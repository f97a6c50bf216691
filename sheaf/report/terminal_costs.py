"""Tables for the terminal of the devices' costs: spent, estimated or planned."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rich.console import Group

from sheaf.core.time_format import format_seconds
from sheaf.core.types import CLOUD
from sheaf.experiments.plan import Planned
from sheaf.experiments.speed import Estimate
from sheaf.report.fitted_table import SUMMARIZED, Column, FittedTable, titled
from sheaf.report.formatting import (
    format_bytes,
    format_count,
    format_ratio,
)
from sheaf.runtime.costs import SiteCost

Combine = Callable[[Sequence[float]], float]
"""Combines a figure of several devices: their mean, or the largest."""


def cost_table(sites: Mapping[str, SiteCost], every: bool = False) -> Group:
    """Return the table of computation and traffic per device, the cloud included.

    Args:
        sites: device -> its cost.
        every: a row for each edge, however many there are.
    """
    shared, noised = _shares_samples(sites), _adds_noise(sites)
    columns = (*_cost_columns(shared, noised), Column("seconds", 3), Column("peak memory", 5))

    def figures(costs: Sequence[SiteCost], join: Combine) -> list[str]:
        return [
            *_cost_figures(costs, join, shared, noised),
            f"{join([cost.seconds for cost in costs]):.1f}",
            format_bytes(peak) if (peak := join([cost.peak_memory_bytes for cost in costs])) else "-",
        ]

    table, notes = _per_device(columns, sites, figures, every)
    return titled("Cost of each device", table, *notes)


def estimate_table(estimate: Estimate, every: bool = False) -> Group:
    """Return the table of computation, traffic and time that each device would spend.

    Args:
        estimate: the estimate for a run.
        every: a row for each edge, however many there are.
    """
    sites = {site: replace(cost, seconds=estimate.seconds[site]) for site, cost in estimate.sites.items()}

    shared, noised = _shares_samples(sites), _adds_noise(sites)

    def figures(costs: Sequence[SiteCost], join: Combine) -> list[str]:
        return [*_cost_figures(costs, join, shared, noised), f"{join([cost.seconds for cost in costs]):.1f}"]

    table, notes = _per_device((*_cost_columns(shared, noised), Column("seconds", 3)), sites, figures, every)
    total = f"about {format_seconds(sum(estimate.seconds.values()))} of training in all"
    if estimate.baselines:
        total += f", and {format_seconds(estimate.baselines)} for the baselines"
    time_note = f"seconds: from a measured step on this machine, one device after another; {total}"
    return titled("Each device would spend", table, *notes, time_note)


def _shares_samples(sites: Mapping[str, SiteCost]) -> bool:
    """Return whether training samples leave a device."""
    return any(cost.samples_sent for cost in sites.values())


def _adds_noise(sites: Mapping[str, SiteCost]) -> bool:
    """Return whether statistics with noise leave a device."""
    return any(cost.epsilon is not None for cost in sites.values())


def _cost_columns(shared: bool, noised: bool) -> list[Column]:
    return [
        Column("device", right=False),
        Column("mult-adds/image", 4),
        Column("in training", 2),
        *([Column("images\nsent")] if shared else []),
        *([Column("ε")] if noised else []),
        Column("sent"),
        Column("received", 1),
    ]


def _cost_figures(costs: Sequence[SiteCost], join: Combine, shared: bool, noised: bool) -> list[str]:
    images = join([cost.samples_sent or 0 for cost in costs])
    return [
        format_count(join([cost.macs_per_example for cost in costs])),
        format_count(join([cost.train_macs for cost in costs])),
        *([f"{images:,.0f}"] if shared else []),
        *([_epsilon(costs, join)] if noised else []),
        format_bytes(join([cost.bytes_sent for cost in costs])),
        format_bytes(join([cost.bytes_received for cost in costs])),
    ]


def _epsilon(costs: Sequence[SiteCost], join: Combine) -> str:
    """Return the joined privacy loss of the sites that sent statistics with noise; ``-`` if none did."""
    losses = [cost.epsilon for cost in costs if cost.epsilon is not None]
    return f"{join(losses):.3g}" if losses else "-"


def _per_device(
    columns: Sequence[Column],
    sites: Mapping[str, SiteCost],
    figures: Callable[[Sequence[SiteCost], Combine], list[str]],
    every: bool,
) -> tuple[FittedTable, list[str]]:
    """Return a table with a row for each device, or for mean and maximum of many edges; and its notes."""
    table, notes = FittedTable(columns), []
    edges = [site for site in sites if site != CLOUD]
    if len(edges) >= SUMMARIZED and not every:
        costs = [sites[site] for site in edges]
        table.add_row("edges, mean", *figures(costs, statistics.mean))
        table.add_row("edges, most", *figures(costs, max))
        notes.append(f"most: the largest figure of any of the {len(edges):,} edges; --all prints each edge")
    else:
        for site in edges:
            table.add_row(site, *figures([sites[site]], max))
    table.add_row(CLOUD, *figures([sites[CLOUD]], max))
    return table, notes


def plan_table(planned: Sequence[Planned]) -> Group:
    """Return the table of planned sub-models: width, cost, and the budget that limits the width."""
    table = FittedTable(
        [
            Column("device", right=False),
            Column("classes", 6),
            Column("width"),
            Column("mult-adds", 1),
            Column("saved", 3),
            Column("parameters", 5),
            Column("memory", 4),
            Column("s/epoch", 2),
            Column("limited by", 0, right=False),
        ]
    )
    for part in planned:
        needs = part.needs
        table.add_row(
            part.site,
            str(part.classes),
            f"{part.width:.3f}",
            format_count(needs.macs),
            format_ratio(part.saved),
            format_count(needs.parameters),
            format_bytes(needs.memory),
            f"{needs.seconds:.2g}" if needs.seconds else "-",
            part.limited_by or "full width",
        )
    return titled(
        "Widest sub-model within each device's budget, and what training it would spend",
        table,
        "s/epoch: seconds of an epoch over the device's images, from a measured step on this machine or the "
        "speed in its budget",
    )
