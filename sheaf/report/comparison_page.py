"""The page of several runs: accuracy and cost of each method, over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sheaf.report.document import Page, Section, Table
from sheaf.report.formatting import (
    format_bytes,
    format_count,
    format_mean,
    format_number_of,
    format_percent,
    format_points,
    format_ratio,
    join_names,
)
from sheaf.report.intervals import half_interval
from sheaf.report.load_runs import Run
from sheaf.report.method_groups import MethodRuns, group_by_method
from sheaf.report.paper_results import paper_section
from sheaf.report.pictures.frontier import Point, draw_frontier, pareto_frontier
from sheaf.report.pictures.methods import draw_methods
from sheaf.report.provenance import (
    commit_label,
    dataset_name,
    flatten,
    provenance_value,
    setting_value,
    used_settings,
)
from sheaf.report.time_section import comparison_section

Format = Callable[[Sequence[float]], str]
Best = Callable[[Sequence[float]], float]


def comparison_page(runs: Sequence[Run], unfinished: Sequence[Path] = ()) -> Page:
    """Return the page.

    Args:
        runs: finished runs on the same classes.
        unfinished: folders of unfinished runs, which the page mentions.

    Raises:
        RunFolderError: the runs have different classes, or two have the same settings and seed.
    """
    methods = group_by_method(runs)
    first = runs[0].result
    papers = [section for method in methods if (section := paper_section(method.results)) is not None]
    sections = [
        methods_section(methods),
        *frontier_section(methods),
        *spending_section(methods),
        *papers[:1],
        runs_section(methods, unfinished),
    ]
    labels = [method.label for method in methods]
    seeds = sorted({len(method.runs) for method in methods})
    names = join_names(labels) if len(labels) < 4 else format_number_of(len(labels), "method")
    return Page(
        title=f"{names} on {dataset_name(first)}",
        facts=(
            ("experiment", str(setting_value(first, "title") or "-")),
            ("runs", f"{len(runs)}: {format_number_of(len(methods), 'method')}, "
             f"{' to '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'} each"),
            ("data", f"{dataset_name(first)}, {format_number_of(len(first.classes), 'class')}"),
            ("model", str(setting_value(first, "model", "name"))),
            ("edges", join_names(sorted({f"{len(run.result.split):,}" for run in runs}))),
            ("commit", join_names(sorted({commit_label(run.result) for run in runs}), 2)),
        ),
        sections=sections,
    )  # fmt: skip


def methods_section(methods: Sequence[MethodRuns]) -> Section:
    """Return the section that compares accuracies and costs."""
    columns: Sequence[tuple[str, Callable[[MethodRuns], Sequence[float]], Format, Best]] = (
        ("edges, mean", lambda m: m.mean_edge, format_mean, max),
        ("worst edge", lambda m: m.worst_edge, format_mean, max),
        ("cloud, all classes", lambda m: m.cloud, format_mean, max),
        ("traffic", lambda m: [m.bytes], lambda v: format_bytes(v[0]), min),
        ("edges' work", lambda m: [m.edge_macs], lambda v: format_count(v[0]), min),
        ("cloud's work", lambda m: [m.macs - m.edge_macs], lambda v: format_count(v[0]), min),
        ("saved", lambda m: [m.saved], lambda v: format_ratio(v[0]), max),
    )  # fmt: skip
    if all(format_ratio(method.saved) == "1.0x" for method in methods):  # nothing is cut
        columns = columns[:-1]
    rows: list[list[str]] = [[method.label, str(len(method.runs))] for method in methods]
    bold: list[tuple[int, int]] = []
    for number, (_, values_of, text_of, best_of) in enumerate(columns, start=2):
        values = [values_of(method) for method in methods]
        texts = [text_of(each) for each in values]
        means = [statistics.mean(each) for each in values if each]
        if len(set(texts)) > 1:
            bold += [
                (row, number)
                for row, each in enumerate(values)
                if each and statistics.mean(each) == best_of(means)
            ]
        for row, text in zip(rows, texts, strict=True):
            row.append(text)
    seeds = max(len(method.runs) for method in methods)
    finding, facts = _best_of(methods)
    scores = {name: values_of for name, values_of, _, _ in columns[:3]}
    return Section(
        id="methods",
        title="Comparison of methods",
        finding=finding,
        facts=facts,
        pictures=[
            draw_methods(
                {
                    method.label: {name: values_of(method) for name, values_of in scores.items()}
                    for method in methods
                }
            )
        ],
        tables=[
            Table(
                "Accuracy and cost of each method",
                ("method", "seeds", *(name for name, *_ in columns)),
                rows,
                bold=bold,
            )
        ],
        notes=[
            *["± is the standard deviation over the seeds."] * (seeds > 1),
            "Bold: the best mean of each column.",
            "Edges: accuracy on the test images of each edge's own classes.",
            "Traffic: bytes in both directions, start weights included. Work: multiply-adds of all training. "
            "Saved: multiply-adds per image, the whole model's divided by the smallest sub-model's.",
        ],
    )


def _best_of(methods: Sequence[MethodRuns]) -> tuple[str, list[tuple[str, str]]]:
    """Return a sentence on the best method for the edges, and facts on it and on the others."""
    best = max(methods, key=lambda method: statistics.mean(method.mean_edge or [0]))
    similar = _not_distinguishable(best, methods)
    sentence = (
        f"Highest mean accuracy of the edges: {best.label} "
        f"({format_percent(statistics.mean(best.mean_edge or [0]))})"
    )
    facts = []
    if similar:
        names = join_names([method.label for method in similar], 6)
        facts.append(("seeds", f"With these seeds not distinguishable from {best.label}: {names}."))
    alone = next((method for method in methods if method.runs[0].result.method == "local"), None)
    if alone is best:
        facts.append(("beside local training", "No method is better on the edges' own classes."))
    elif alone is not None and alone.mean_edge and best.mean_edge:
        mean = statistics.mean(best.mean_edge) - statistics.mean(alone.mean_edge)
        worst = statistics.mean(best.worst_edge) - statistics.mean(alone.worst_edge)
        facts.append(
            ("beside local training", f"{best.label}: edges' mean {format_points(mean)} points, "
             f"worst edge {format_points(worst)} points.")
        )  # fmt: skip
    if measured := [method for method in methods if method.worst_edge]:
        top = max(measured, key=lambda method: statistics.mean(method.worst_edge))
        facts.append(("worst edge", f"{top.label}, {format_percent(statistics.mean(top.worst_edge))}."))
    if in_cloud := [method for method in methods if method.cloud]:
        top = max(in_cloud, key=lambda method: statistics.mean(method.cloud))
        accuracy = format_percent(statistics.mean(top.cloud))
        facts.append(("cloud's model", f"Highest accuracy on all classes: {top.label}, {accuracy}."))
        if not best.cloud:
            sentence += f"; it trains no model in the cloud, where {top.label} is best ({accuracy})"
        elif (behind := statistics.mean(top.cloud) - statistics.mean(best.cloud)) > 0:
            sentence += (
                f"; its cloud's model ({format_percent(statistics.mean(best.cloud))}) is {100 * behind:.1f} "
                f"points below that of {top.label} ({accuracy})"
            )
    return f"{sentence}.", facts


def _not_distinguishable(best: MethodRuns, methods: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods whose 95 % interval of the mean overlaps that of the best, or is unknown."""
    high, half = statistics.mean(best.mean_edge or [0]), half_interval(best.mean_edge)
    return [
        method
        for method in methods
        if method is not best
        and method.mean_edge
        and (
            len(method.runs) == 1
            or len(best.runs) == 1
            or high - half < statistics.mean(method.mean_edge) + half_interval(method.mean_edge)
        )
    ]


def frontier_section(methods: Sequence[MethodRuns]) -> Iterator[Section]:
    """Yield the section on accuracy against bytes and multiply-adds; nothing for a single method."""
    edges = [Point(m.label, m.bytes, m.macs, m.mean_edge) for m in methods if m.mean_edge]
    cloud = [Point(m.label, m.bytes, m.macs, m.cloud) for m in methods if m.cloud]
    panels = {"edges, on their own classes": edges, "cloud's model, on all classes": cloud}
    if len(methods) < 2:
        return
    findings = []
    for place, points in (("the edges' own classes", edges), ("the cloud's model", cloud)):
        by_bytes, by_macs = (
            join_names([p.label for p in pareto_frontier(points, cost)], 6)
            for cost in (lambda p: p.bytes, lambda p: p.macs)
        )
        if points:
            findings.append(
                f"Pareto-optimal for {place}, by traffic: {by_bytes}; by multiply-adds: {by_macs}."
            )
    yield Section(
        id="frontier",
        title="Accuracy against cost",
        finding=" ".join(findings),
        pictures=[draw_frontier({title: points for title, points in panels.items() if points})],
    )


def spending_section(methods: Sequence[MethodRuns]) -> Iterator[Section]:
    """Yield the section on accuracy against seconds, bytes and joules, if the first runs recorded them."""
    section = comparison_section({method.label: method.results[0] for method in methods})
    if section is not None:
        yield section


def runs_section(methods: Sequence[MethodRuns], unfinished: Sequence[Path]) -> Section:
    """Return the section that lists every run with its provenance, and each method's settings."""
    rows = [
        (str(run.folder), method.label, str(provenance_value(run.result, "seed")), commit_label(run.result),
         str(provenance_value(run.result, "finished") or "-")[:16], fingerprint[:12])
        for method in methods for run in method.runs
        for fingerprint in [
            next((digest for _, digest in flatten(provenance_value(run.result, "data"))), "-")
        ]
    ]  # fmt: skip
    notes = []
    if len({row[-1] for row in rows}) > 1:
        notes.append("The runs used different data: their fingerprints differ.")
    if unfinished:
        notes.append(
            f"Unfinished runs, not included: {join_names([str(folder) for folder in unfinished], 6)}."
        )
    settings = [dict(flatten(used_settings(setting_value(method.results[0])))) for method in methods]
    keys = [
        key for key in dict.fromkeys(key for each in settings for key in each) if key not in ("seed", "title")
    ]
    used_keys = [key for key in keys if any(each.get(key) for each in settings)]
    return Section(
        id="runs",
        title="Runs and settings",
        finding=f"{format_number_of(len(rows), 'run')} of {format_number_of(len(methods), 'method')}.",
        tables=[
            Table(
                "Runs", ("run", "method", "seed", "commit", "finished", "data fingerprint"), rows,
                text_columns=6,
            ),
            Table(
                "Settings of each method",
                ("setting", *(method.label for method in methods)),
                [(key, *(each.get(key, "") for each in settings)) for key in used_keys],
                text_columns=1 + len(methods),
                folded=True,
            ),
        ],
        notes=notes,
    )  # fmt: skip
