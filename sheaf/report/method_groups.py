"""Group runs that differ only in their seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sheaf.core.errors import RunFolderError
from sheaf.core.types import CLOUD
from sheaf.report.history import edge_histories
from sheaf.report.load_runs import Run
from sheaf.report.provenance import flatten, provenance_value, setting_value, used_settings
from sheaf.runtime.result import Result


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method with one set of settings; properties that are lists have a value per run.

    Attributes:
        label: the method's name, with settings if other groups use the same method.
        runs: one for each seed.
    """

    label: str
    runs: Sequence[Run]

    @property
    def results(self) -> list[Result]:
        """The result of each run."""
        return [run.result for run in self.runs]

    @cached_property
    def edges(self) -> list[list[float]]:
        """For each run, the final accuracy of each edge on its own classes."""
        return [[edge.last.accuracy for edge in edge_histories(result)] for result in self.results]

    @property
    def mean_edge(self) -> list[float]:
        """The edges' mean accuracy."""
        return [statistics.mean(edges) for edges in self.edges if edges]

    @property
    def worst_edge(self) -> list[float]:
        """The worst edge's accuracy."""
        return [min(edges) for edges in self.edges if edges]

    @property
    def cloud(self) -> list[float]:
        """The final accuracy of the cloud's model on all classes; empty for a method without one."""
        rows = [row for result in self.results if (row := result.final(CLOUD))]
        return [row.accuracy_all for row in rows if row.accuracy_all is not None]

    @property
    def bytes(self) -> float:
        """Bytes sent by all sites, mean over the runs."""
        return self._mean([sum(cost.bytes_sent for cost in result.cost.values()) for result in self.results])

    @property
    def macs(self) -> float:
        """Multiply-adds of all training, edges and cloud, mean over the runs."""
        return self._mean([sum(cost.train_macs for cost in result.cost.values()) for result in self.results])

    @property
    def edge_macs(self) -> float:
        """Multiply-adds of the edges' training, mean over the runs."""
        return self.macs - self._mean(
            [result.cost[CLOUD].train_macs if CLOUD in result.cost else 0 for result in self.results]
        )

    @property
    def saved(self) -> float:
        """Multiply-adds per image: the whole model's divided by the smallest sub-model's."""
        first = self.results[0]
        smallest = min(first.cost[site].macs_per_example for site in first.split)
        return first.whole.macs_per_example / max(smallest, 1)

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)


def group_by_method(runs: Sequence[Run]) -> list[MethodRuns]:
    """Group the runs by all settings except the seed; the best mean accuracy of the edges comes first.

    Raises:
        RunFolderError: the runs have different classes, or two have the same settings and seed.
    """
    for run in runs[1:]:
        if run.result.classes != runs[0].result.classes:
            raise RunFolderError(
                f"{run.folder} has other classes than {runs[0].folder}; compare runs on the same data"
            )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in (setting_value(run.result) or {}).items() if key != "seed"}
        groups.setdefault(json.dumps([run.result.method, settings], sort_keys=True), []).append(run)
    for group in groups.values():
        seeds = [provenance_value(run.result, "seed") for run in group]
        for n, seed in enumerate(seeds):
            if seed in seeds[:n]:
                raise RunFolderError(
                    f"{group[seeds.index(seed)].folder} and {group[n].folder} are the same experiment with "
                    f"the same seed ({seed}); give one of them"
                )
    labels = _labels(list(groups.values()))
    methods = [MethodRuns(label, group) for label, group in zip(labels, groups.values(), strict=True)]
    return sorted(methods, key=lambda method: -statistics.mean(method.mean_edge or [0]))


def _labels(groups: Sequence[Sequence[Run]]) -> Iterator[str]:
    """Yield each group's method, followed by the settings in which groups of the same method differ."""
    names = [group[0].result.method for group in groups]
    settings = [dict(flatten(used_settings(setting_value(group[0].result)))) for group in groups]
    for n, name in enumerate(names):
        same_method = [settings[other] for other, other_name in enumerate(names) if other_name == name]
        keys = [
            key
            for key in settings[n]
            if key not in ("seed", "title") and len({each.get(key) for each in same_method}) > 1
        ]
        differing = ", ".join(f"{key.removeprefix('method.')} {settings[n][key]}" for key in keys[:3])
        if differing:
            yield f"{name} ({differing})"
        else:
            yield name if len(same_method) == 1 else f"{name} {n + 1}"
