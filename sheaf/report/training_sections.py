"""Sections of a run's page about its data, sub-models, training, cost and settings.

Functions that return ``Section | None`` return None if the result contains nothing to show.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from sheaf.core.types import CLOUD
from sheaf.report.document import Section, Table
from sheaf.report.formatting import (
    MAX_LISTED,
    format_bytes,
    format_count,
    format_number_of,
    format_percent,
    format_ratio,
    join_names,
)
from sheaf.report.load_runs import Run
from sheaf.report.pictures.cost import draw_cost
from sheaf.report.pictures.curves import draw_curves
from sheaf.report.pictures.cuts import channel_fraction, draw_cuts
from sheaf.report.pictures.split import draw_split
from sheaf.report.provenance import commit_label, flatten, provenance_value, setting_value, used_settings
from sheaf.report.stages import stage_label
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Curve, Result

MAX_SKIPPED = 200
"""Most rows of the table of skipped answers."""


def split_section(result: Result) -> Section:
    """Return the section on the split of the training images."""
    totals = [sum(counts) for counts in result.split.values()]
    classes = [sum(n > 0 for n in counts) for counts in result.split.values()]
    k = len(result.classes)
    holders = [sum(counts[c] > 0 for counts in result.split.values()) for c in range(k)]
    if max(holders) <= 1:
        overlap = "No class is on two edges."
    elif min(holders) < max(holders):
        overlap = f"Each class is on {_range(holders)} edges."
    else:
        overlap = f"Every class is on {holders[0]:,} edges."
    each = "Each of " if len(totals) > 1 else ""
    return Section(
        "split",
        "Training data of each edge",
        f"{each}{format_number_of(len(totals), 'edge')} has {_range(classes)} of "
        f"{format_number_of(k, 'class')} and {_range(totals)} training images. {overlap}",
        [draw_split(result)],
        [split_table(result)] if k <= MAX_LISTED and len(totals) <= MAX_LISTED else [],
    )


def _range(numbers: list[int]) -> str:
    """Return ``3 to 5``, or ``3`` if all numbers are equal."""
    low, high = min(numbers), max(numbers)
    return f"{low:,} to {high:,}" if low < high else f"{low:,}"


def split_table(result: Result) -> Table:
    """Return the table of training images per class and edge."""
    rows = [
        (site, *(f"{n:,}" if n else "-" for n in counts), f"{sum(counts):,}")
        for site, counts in result.split.items()
    ]
    return Table("Training images of each class", ("edge", *result.classes, "all"), rows, folded=True)


def submodels_section(result: Result) -> Section | None:
    """Return the section on the cuts, if devices hold sub-models."""
    if result.cuts is None or not result.cuts.groups:
        return None
    costs = {site: result.cost[site] for site in result.split}
    smallest = min(costs, key=lambda site: costs[site].macs_per_example)
    largest = max(costs, key=lambda site: costs[site].macs_per_example)
    whole = result.whole.macs_per_example

    def saved(site: str) -> str:
        return format_ratio(whole / max(costs[site].macs_per_example, 1))

    finding = (
        f"The smallest sub-model ({smallest}) needs {saved(smallest)} less computation per image than the "
        "whole model"
    )
    if saved(largest) != saved(smallest):
        is_part = costs[largest].macs_per_example < 0.95 * whole
        finding += f"; the largest ({largest}) " + (
            f"needs {saved(largest)} less" if is_part else "is the whole model"
        )
    rows = [
        (join_names(part.sites, 3), format_percent(channel_fraction(part, result.cuts.groups)),
         format_count(costs[part.sites[0]].macs_per_example), saved(part.sites[0]),
         format_count(costs[part.sites[0]].parameters),
         f"{len(part.classes) if part.classes is not None else len(result.classes)}",
         "yes" if part.other else "no")
        for part in result.cuts.parts[:MAX_LISTED] if part.sites[0] in costs
    ]  # fmt: skip
    headings = (
        "device", "channels", "multiply-adds/image", "saved", "parameters", "classes", "'other' output",
    )  # fmt: skip
    complete = len(rows) == len(result.cuts.parts)
    return Section(
        "cuts",
        "Sub-model of each device",
        f"{finding}.",
        [draw_cuts(result.cuts)],
        [Table("Each sub-model" if complete else f"The first {len(rows)} sub-models", headings, rows)],
    )


def curves_section(result: Result) -> Section | None:
    """Return the section with the learning curves."""
    if not result.curves:
        return None
    at_edges = [curve for curve in result.curves if CLOUD not in curve.losses]
    last = (at_edges or result.curves)[-1]
    before, after = _first_and_last_loss(last)
    finding = "Training loss of each call that trained, in order."
    if before is not None and after is not None:
        site, loss = ("edges", "the median loss") if at_edges else ("cloud", "the loss")
        change = f"went from {before:.3g} to {after:.3g}" if before != after else f"was {after:.3g}"
        stage = f" (stage '{stage_label(last.stage)}')" if last.stage else ""
        finding = f"In the last training of the {site}{stage}, {loss} {change}."
    return Section("curves", "Training loss", finding, [draw_curves(result.curves)])


def _first_and_last_loss(curve: Curve) -> tuple[float | None, float | None]:
    """Return the median loss over the sites in the first and in the last epoch."""
    if curve.spread:
        return curve.spread[0][1], curve.spread[-1][1]
    columns = [
        [losses[at] for losses in curve.losses.values() if losses and losses[at] is not None]
        for at in (0, -1)
    ]
    first, last = (statistics.median([v for v in c if v is not None]) if c else None for c in columns)
    return first, last


def _epsilon(cost: SiteCost) -> str:
    """Return the privacy loss of a site's statistics; ``-`` if it sent none with noise."""
    return "-" if cost.epsilon is None else f"{cost.epsilon:.3g}"


def cost_section(result: Result) -> Section:
    """Return the section on each device's cost, relative to the whole model."""
    edges = {site: result.cost[site] for site in result.split}
    listed = dict(_listed_costs(edges))
    if CLOUD in result.cost:
        listed[CLOUD] = result.cost[CLOUD]
    shared = any(cost.samples_sent for cost in listed.values())
    noised = any(cost.epsilon is not None for cost in listed.values())
    whole = result.whole
    weakest = min(edges, key=lambda site: edges[site].macs_per_example)
    ratio = whole.macs_per_example / max(edges[weakest].macs_per_example, 1)
    at_edges = sum(cost.train_macs for cost in edges.values())
    at_cloud = result.cost[CLOUD].train_macs if CLOUD in result.cost else 0
    size = (
        "Every edge trains the whole model"
        if ratio < 1.05
        else f"The smallest sub-model needs {format_ratio(ratio)} less computation per image than the whole "
        "model"
    )
    up = sum(cost.bytes_sent for cost in edges.values())
    down = sum(cost.bytes_received for cost in edges.values())
    fraction = format_percent(at_edges / (at_edges + at_cloud)) if at_edges and at_cloud else ""
    work = f"{fraction or ('all' if at_edges else 'none')} of the training"
    amounts = f"{format_count(at_edges)} multiply-adds, the cloud {format_count(at_cloud)}"
    finding = (
        f"{size}. The edges did {work} ({amounts}). They sent "
        f"{format_bytes(up)} and received {format_bytes(down)}."
    )
    rows: list[tuple[str, ...]] = [
        (site, format_count(cost.macs_per_example),
         format_ratio(whole.macs_per_example / max(cost.macs_per_example, 1)),
         format_count(cost.parameters), format_count(cost.train_macs),
         *([f"{cost.samples_sent or 0:,}"] if shared else []),
         *([_epsilon(cost)] if noised else []), format_bytes(cost.bytes_sent),
         format_bytes(cost.bytes_received), f"{cost.seconds:.3g}", _peak(cost))
        for site, cost in listed.items()
    ]  # fmt: skip
    headings: tuple[str, ...] = (
        "device", "multiply-adds/image", "saved", "parameters", "multiply-adds in training",
        *(["images sent"] if shared else []), *(["ε of statistics"] if noised else []),
        "sent", "received", "seconds", "peak memory",
    )  # fmt: skip
    if {row[2] for row in rows} == {"1.0x"}:  # nothing is cut
        headings, rows = headings[:2] + headings[3:], [row[:2] + row[3:] for row in rows]
    else:
        rows.append(
            ("whole model", format_count(whole.macs_per_example), "1.0x", format_count(whole.parameters),
             *["-"] * (5 + shared + noised))
        )  # fmt: skip
    picture = draw_cost(listed, whole, CLOUD)
    return Section(
        "cost",
        "Cost of each device",
        finding,
        [picture] if picture is not None else [],
        [Table("Cost by device", headings, rows)],
    )


def _peak(cost: SiteCost) -> str:
    """Return the peak memory; a dash for a simulated device, whose memory is not measured."""
    return format_bytes(cost.peak_memory_bytes) if cost.peak_memory_bytes else "-"


def _listed_costs(edges: Mapping[str, SiteCost]) -> Iterator[tuple[str, SiteCost]]:
    """Yield each edge's cost; of many edges, those with least, median and most training."""
    if len(edges) <= MAX_LISTED:
        yield from edges.items()
        return
    ordered = sorted(edges, key=lambda site: edges[site].train_macs)
    for label, site in (("least", ordered[0]), ("median", ordered[len(ordered) // 2]), ("most", ordered[-1])):
        yield f"{label}: {site}", edges[site]


def skipped_section(result: Result) -> Section | None:
    """Return the section on refused answers and absent devices, if there are any."""
    if not result.refused:
        return None
    stage = {
        curve.call: stage_label(curve.stage) + (f" ({curve.round})" if curve.round > 1 else "")
        for curve in result.curves
    }
    rows = [
        (r.site, str(r.call or "start"), stage.get(r.call) or "-", r.why)
        for r in result.refused[:MAX_SKIPPED]
    ]
    sites = list(dict.fromkeys(refusal.site for refusal in result.refused))
    return Section(
        "refused",
        "Skipped devices",
        f"{format_number_of(len(result.refused), 'answer')} missing or refused, from {join_names(sites)}.",
        tables=[
            Table("Missing and refused answers", ("edge", "call", "before", "reason"), rows, text_columns=4)
        ],
        notes=[f"The table contains the first {MAX_SKIPPED}."] if len(result.refused) > MAX_SKIPPED else [],
    )


def replacements_section(result: Result) -> Section | None:
    """Return the section on whether the run's model became each real device's current one."""
    if not result.replacements:
        return None
    explained_first = sorted(result.replacements.items(), key=lambda item: not item[1].why)
    rows = [
        (site, "replaced" if each.replaced else "kept", each.why or "-",
         *("-" if accuracy is None else f"{accuracy:.4f}" for accuracy in (each.before, each.held_out)),
         f"{each.samples:,}")
        for site, each in explained_first[:MAX_LISTED]
    ]  # fmt: skip
    headings = ("device", "current model", "reason", "before", "run's model", "held-out examples")
    replaced, total = sum(each.replaced for each in result.replacements.values()), len(result.replacements)
    return Section(
        "replacements",
        "The devices' current models",
        f"The run's model is current on {replaced:,} of {format_number_of(total, 'device')}.",
        tables=[Table("Decisions, with accuracies on held-out examples", headings, rows, text_columns=3)],
        notes=[f"The table contains the first {MAX_LISTED}."]
        if len(result.replacements) > MAX_LISTED
        else [],
    )


def settings_section(run: Run) -> Section:
    """Return the section on settings and provenance: the information that reproduces the run."""
    result = run.result
    used = used_settings(setting_value(result))
    all_settings = [(key, value) for key, value in flatten(used) if value != ""]
    method = (used or {}).get("method") or {}
    recipes = {name: r for name, r in method.items() if isinstance(r, Mapping) and "optimizer" in r}
    keys = list(dict.fromkeys(key for recipe in recipes.values() for key in recipe))
    recipe_rows = [
        (name, *(_recipe_cell(recipe.get(key)) for key in keys)) for name, recipe in recipes.items()
    ]
    finished = provenance_value(result, "finished")
    provenance = [
        ("run", str(run.folder)), ("commit", commit_label(result)), ("finished", str(finished)),
        *((f"data {name}", digest) for name, digest in flatten(provenance_value(result, "data"))),
        *flatten(provenance_value(result, "versions")), *flatten(provenance_value(result, "hardware")),
    ]  # fmt: skip
    tables = [
        Table("Settings", ("setting", "value"), all_settings, text_columns=2, folded=True),
        Table("Provenance", ("name", "value"), provenance, text_columns=2, folded=True),
    ]
    if recipe_rows:
        recipes_table = Table("Training recipes", ("step", *keys), recipe_rows, text_columns=1 + len(keys))
        tables.insert(0, recipes_table)
    processor = provenance_value(result, "hardware", "cpu") or "an unknown processor"
    return Section(
        "settings",
        "Settings and provenance",
        f"Finished {str(finished or '-')[:10]} at commit {commit_label(result)}, seed "
        f"{provenance_value(result, 'seed')}, on {processor}.",
        tables=tables,
        notes=["The file experiment.toml in the run's folder contains every setting and can be run again."],
    )


def _recipe_cell(value: Any) -> str:
    """Return a recipe's value as text, of a plugin without settings the name; ``-`` if empty or not used."""
    if value in (None, "", [], {}):
        return "-"
    if isinstance(value, Mapping) and [*value] == ["name"]:
        value = value["name"]
    return value if isinstance(value, str) else json.dumps(value)
