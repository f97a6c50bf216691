"""The page of several runs: methods side by side, each over its seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sheaf.core.errors import RunFolderError
from sheaf.core.types import CLOUD
from sheaf.report.document import Page, Section, Table
from sheaf.report.gather import Run
from sheaf.report.intervals import half_interval, with_interval
from sheaf.report.origin import commit, data_name, flattened, made, setting
from sheaf.report.papers import beside_the_paper
from sheaf.report.pictures.frontier import Point, frontier, on_the_frontier
from sheaf.report.pictures.methods import methods
from sheaf.report.stages import ways
from sheaf.report.tables import count, size
from sheaf.report.words import listed, percent, some, times
from sheaf.runtime.result import Result


@dataclass(frozen=True)
class Contender:
    """The runs that differ in nothing but their seed; what is listed of them has a value for each."""

    label: str
    runs: Sequence[Run]

    @property
    def results(self) -> list[Result]:
        """Of each run."""
        return [run.result for run in self.runs]

    @cached_property
    def edges(self) -> list[list[float]]:
        """For each run, the accuracy with which each edge ended on its own classes."""
        return [[way.last.accuracy for way in ways(result)] for result in self.results]

    @property
    def mean_edge(self) -> list[float]:
        """The mean over the edges."""
        return [statistics.mean(edges) for edges in self.edges if edges]

    @property
    def worst_edge(self) -> list[float]:
        """The edge that ended worst."""
        return [min(edges) for edges in self.edges if edges]

    @property
    def cloud(self) -> list[float]:
        """The cloud's last model on all classes; empty for a method that leaves none."""
        return [row.accuracy_all for result in self.results if (row := result.final(CLOUD))]

    @property
    def bytes(self) -> float:
        """Sent by all sites, mean over the runs."""
        return self._mean(
            [sum(spent.bytes_sent for spent in result.cost.values()) for result in self.results]
        )

    @property
    def macs(self) -> float:
        """Multiply-adds of all training, edges and cloud, mean over the runs."""
        return self._mean(
            [sum(spent.train_macs for spent in result.cost.values()) for result in self.results]
        )

    @property
    def edge_macs(self) -> float:
        """Those of the edges."""
        return self.macs - self._mean(
            [result.cost[CLOUD].train_macs if CLOUD in result.cost else 0 for result in self.results]
        )

    @property
    def saved(self) -> float:
        """Multiply-adds an image of the whole model over those of the weakest device's part."""
        first = self.results[0]
        least = min(first.cost[site].macs_per_example for site in first.split)
        return first.whole.macs_per_example / max(least, 1)

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)


def comparison(runs: Sequence[Run], unfinished: Sequence[Path] = ()) -> Page:
    """The page.

    Raises:
        RunFolderError: the runs do not tell the same classes apart, or two are the same run.
    """
    found = contenders(runs)
    first = runs[0].result
    papers = [section for group in found if (section := beside_the_paper(group.results)) is not None]
    sections = [
        side_by_side(found),
        *frontiers(found),
        *papers[:1],
        where_from(found, unfinished),
    ]
    labels = [group.label for group in found]
    seeds = sorted({len(group.runs) for group in found})
    return Page(
        title=f"{listed(labels) if len(labels) < 4 else some(len(labels), 'method')} on {data_name(first)}",
        facts=(
            ("experiment", str(setting(first, "title") or "-")),
            ("runs", f"{len(runs)}: {some(len(found), 'method')}, {' to '.join(map(str, seeds))} seeds each"),
            ("data", f"{data_name(first)}, {some(len(first.classes), 'class')}"),
            ("model", str(setting(first, "model", "name"))),
            ("edges", listed(sorted({f"{len(run.result.split):,}" for run in runs}))),
            ("commit", listed(sorted({commit(run.result) for run in runs}), 2)),
        ),
        sections=sections,
    )  # fmt: skip


def contenders(runs: Sequence[Run]) -> list[Contender]:
    """The runs, grouped by all of their settings but the seed; the best on average first.

    Raises:
        RunFolderError: the runs do not tell the same classes apart, or two are the same run.
    """
    for run in runs[1:]:
        if run.result.classes != runs[0].result.classes:
            raise RunFolderError(
                f"{run.folder} is of other classes than {runs[0].folder}: runs on different data cannot be "
                "compared"
            )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in (setting(run.result) or {}).items() if key != "seed"}
        groups.setdefault(json.dumps([run.result.method, settings], sort_keys=True), []).append(run)
    for group in groups.values():
        seeds = [made(run.result, "seed") for run in group]
        for n, seed in enumerate(seeds):
            if seed in seeds[:n]:
                raise RunFolderError(
                    f"{group[seeds.index(seed)].folder} and {group[n].folder} are the same experiment with "
                    f"the same seed ({seed}): together they would count twice"
                )
    labels = _labels(list(groups.values()))
    found = [Contender(label, group) for label, group in zip(labels, groups.values(), strict=True)]
    return sorted(found, key=lambda group: -statistics.mean(group.mean_edge or [0]))


def _labels(groups: Sequence[Sequence[Run]]) -> Iterator[str]:
    """The method's name; where several groups share it, with the settings in which they differ."""
    names = [group[0].result.method for group in groups]
    settings = [dict(flattened(setting(group[0].result))) for group in groups]
    for n, name in enumerate(names):
        alike = [settings[other] for other, theirs in enumerate(names) if theirs == name]
        keys = [
            key
            for key in settings[n]
            if key not in ("seed", "title") and len({its.get(key) for its in alike}) > 1
        ]
        said = ", ".join(f"{key.removeprefix('method.')} {settings[n][key]}" for key in keys[:3])
        yield f"{name} ({said})" if said else name if len(alike) == 1 else f"{name} {n + 1}"


def side_by_side(found: Sequence[Contender]) -> Section:
    """Means with intervals, the worst edge beside the mean, and the table."""
    best = max(found, key=lambda group: statistics.mean(group.mean_edge or [0]))
    fairest = max(found, key=lambda group: statistics.mean(group.worst_edge or [0]))
    finding = (
        f"Over the edges' own classes {best.label} is best on average "
        f"({percent(statistics.mean(best.mean_edge))}"
        + (
            f"; these seeds do not tell it from {listed(alike, 6)})"
            if (alike := _alike(best, found))
            else ")"
        )
    )
    if fairest.label == best.label:
        finding += (
            f", and its worst edge ({percent(statistics.mean(best.worst_edge))}) is the best of the worst"
        )
    else:
        finding += (
            f"; the best worst edge is {fairest.label}'s "
            f"({percent(statistics.mean(fairest.worst_edge))}, against "
            f"{percent(statistics.mean(best.worst_edge))})"
        )
    if in_cloud := [group for group in found if group.cloud]:
        top = max(in_cloud, key=lambda group: statistics.mean(group.cloud))
        finding += (
            f"; on all classes {top.label}'s model in the cloud ({percent(statistics.mean(top.cloud))})"
        )
    rows = [
        (group.label, str(len(group.runs)), with_interval(group.mean_edge), with_interval(group.worst_edge),
         with_interval(group.cloud), size(group.bytes), count(group.edge_macs),
         count(group.macs - group.edge_macs), times(group.saved))
        for group in found
    ]  # fmt: skip
    headings = (
        "method", "seeds", "edges, mean", "worst edge", "cloud, all classes", "sent", "edges' work",
        "cloud's work", "saved",
    )  # fmt: skip
    return Section(
        id="methods",
        title="Methods side by side",
        finding=f"{finding}.",
        pictures=[
            methods(
                {
                    group.label: {
                        "edges, mean": group.mean_edge,
                        "worst edge": group.worst_edge,
                        "cloud, all classes": group.cloud,
                    }
                    for group in found
                }
            )
        ],
        tables=[Table("Methods side by side", headings, rows)],
        notes=[
            "± is half of the mean's 95 % interval over the seeds (Student's t). Edges are measured on the "
            "test images of their own classes. Sent: bytes, by all devices and the cloud; work: "
            "multiply-adds of all training; saved: multiply-adds an image of the whole model over those of "
            "the weakest device's part."
        ],
    )  # fmt: skip


def _alike(best: Contender, found: Sequence[Contender]) -> list[str]:
    """Those whose mean over the edges has an interval that overlaps the best one's, or has no interval."""
    high, half = statistics.mean(best.mean_edge), half_interval(best.mean_edge)
    return [
        group.label
        for group in found
        if group is not best
        and group.mean_edge
        and (
            len(group.runs) == 1
            or len(best.runs) == 1
            or high - half < statistics.mean(group.mean_edge) + half_interval(group.mean_edge)
        )
    ]


def frontiers(found: Sequence[Contender]) -> Iterator[Section]:
    """Accuracy against bytes and against multiply-adds."""
    edges = [Point(g.label, g.bytes, g.macs, g.mean_edge) for g in found if g.mean_edge]
    cloud = [Point(g.label, g.bytes, g.macs, g.cloud) for g in found if g.cloud]
    panels = {"edges, on their own classes": edges, "cloud's model, on all classes": cloud}
    shown = {title: points for title, points in panels.items() if points}
    if len(found) < 2:
        return
    cheap = listed([p.label for p in on_the_frontier(edges, lambda p: p.bytes)], 6)
    quick = listed([p.label for p in on_the_frontier(edges, lambda p: p.macs)], 6)
    yield Section(
        id="frontier",
        title="What accuracy costs",
        finding=f"For the edges' own classes, nothing is both better and cheaper in bytes than {cheap}; in "
        f"multiply-adds, than {quick}.",
        pictures=[frontier(shown)],
    )


def where_from(found: Sequence[Contender], unfinished: Sequence[Path]) -> Section:
    """Every run, and where its figures come from."""
    rows = [
        (str(run.folder), group.label, str(made(run.result, "seed")), commit(run.result),
         str(made(run.result, "finished") or "-")[:16], data[:12])
        for group in found for run in group.runs
        for data in [next((digest for _, digest in flattened(made(run.result, "data"))), "-")]
    ]  # fmt: skip
    different = len({row[-1] for row in rows}) > 1
    notes = ["The runs were not made on the same data: their fingerprints differ."] if different else []
    if unfinished:
        notes.append(f"Left out, as not finished: {listed([str(place) for place in unfinished], 6)}.")
    settings = [dict(flattened(setting(group.results[0]))) for group in found]
    keys = [
        key for key in dict.fromkeys(key for its in settings for key in its) if key not in ("seed", "title")
    ]
    kept = [key for key in keys if any(its.get(key) for its in settings)]
    return Section(
        id="runs",
        title="What was run",
        finding=f"{some(len(rows), 'run')} of {some(len(found), 'method')}.",
        tables=[
            Table(
                "Runs", ("run", "method", "seed", "commit", "finished", "data's fingerprint"), rows, words=6
            ),
            Table(
                "Settings of each method",
                ("setting", *(group.label for group in found)),
                [(key, *(its.get(key, "") for its in settings)) for key in kept],
                words=1 + len(found),
                folded=True,
            ),
        ],
        notes=notes,
    )
