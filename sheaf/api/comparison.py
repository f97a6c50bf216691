"""Compare methods from Python."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

from sheaf.api.finished_run import Run, html_table
from sheaf.api.given import Changes, experiment_of
from sheaf.api.notebook import make_observer
from sheaf.api.run import threads_kept
from sheaf.core.atomic_io import write_durably
from sheaf.core.optional_imports import extra, needs
from sheaf.experiments import compare as comparing
from sheaf.experiments.compare import Summary
from sheaf.experiments.config import Experiment
from sheaf.experiments.run_folder import new_folder
from sheaf.report.formatting import format_bytes, format_mean
from sheaf.runtime.observer import Observer


class Comparison(Sequence[Summary]):
    """The summaries of a comparison, one for each method.

    Args:
        folder: the folder of the runs.
        summaries: in the order of the methods.

    Attributes:
        folder: likewise.
    """

    def __init__(self, folder: Path, summaries: Sequence[Summary]) -> None:
        self.folder = folder
        self._summaries = tuple(summaries)

    @overload
    def __getitem__(self, index: int) -> Summary: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Summary]: ...
    def __getitem__(self, index: int | slice) -> Summary | Sequence[Summary]:
        return self._summaries[index]

    def __len__(self) -> int:
        return len(self._summaries)

    @property
    def runs(self) -> dict[str, Run]:
        """The finished runs, by the names of their folders."""
        return {path.parent.name: Run(path.parent) for path in sorted(self.folder.glob("*/result.json"))}

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each method and seed.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return extra("pandas", "pandas").DataFrame(list(self._records()))

    def report(self, out: str | Path | None = None) -> Path:
        """Write the HTML report and return its path; by default ``report.html`` in the folder."""
        with needs("workstation"):
            from sheaf.report.page import write_report
        return write_report([self.folder], None if out is None else Path(out))

    def _records(self) -> Iterator[dict[str, Any]]:
        for summary in self:
            for seed, (mean, worst) in enumerate(zip(summary.mean_edge, summary.worst_edge, strict=True)):
                cloud = summary.cloud[seed] if summary.cloud else None
                yield {
                    "method": summary.method,
                    "run": seed,
                    "mean_edge": mean,
                    "worst_edge": worst,
                    "cloud": cloud,
                    "bytes": summary.bytes,
                }

    def __repr__(self) -> str:
        methods = ", ".join(f"{each.method} {format_mean(each.mean_edge)}" for each in self)
        return f"<Comparison: mean edge {methods}; folder {str(self.folder)!r}>"

    def _repr_html_(self) -> str:
        rows = [
            [
                each.method,
                format_mean(each.mean_edge),
                format_mean(each.worst_edge),
                format_mean(each.cloud),
                format_bytes(each.bytes),
            ]
            for each in self
        ]
        return (
            html_table(("method", "edges, mean", "worst edge", "cloud", "traffic"), rows)
            + f"<div>folder: <code>{html.escape(str(self.folder))}</code></div>"
        )


def compare(
    experiment: str | Path | Experiment = "default",
    methods: str | Sequence[str] = ("ecavg", "fedavg", "local", "central"),
    seeds: int = 1,
    *,
    out: str | Path | None = None,
    data: Any = None,
    model: Any = None,
    partition: Any = None,
    seed: int | None = None,
    changes: Changes = (),
    sweep: Mapping[str, Sequence[Any]] | None = None,
    root: str | Path | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Compare methods on the same data, seeds and training budget.

    Args:
        experiment: as in ``run``; likewise data, model, partition, seed, changes, root and progress.
        methods: their names, as a list or separated by commas.
        seeds: the number of seeds, counted up from the experiment's.
        out: the folder of the runs; finished runs in it are read, and interrupted ones resumed.
        sweep: one setting's key -> its values. Each method runs with each value.

    Raises:
        SheafError: any error that the caller can fix.
    """
    base = None if root is None else Path(root)
    given: dict[str, Any] = {"data": data, "model": model, "partition": partition, "seed": seed, "root": base}
    settings = experiment_of(experiment, changes=changes, **given)
    folder = new_folder(settings, comparison=True) if out is None else Path(out)
    variants = None
    if sweep is not None:
        variants = {
            f"{key.removeprefix('method.')}={value}": experiment_of(settings, changes={key: value})
            for key, values in sweep.items()
            for value in values
        }

    line: list[Any] = []

    def observer(title: str, own: Path) -> Observer:
        return make_observer(progress, title, own, rows=False, line=line)

    names = methods.split(",") if isinstance(methods, str) else list(methods)
    with threads_kept():
        summaries = comparing.compare(settings, names, seeds, folder, base, observer, variants)
    write_durably(
        folder / "compare.json", json.dumps([asdict(each) for each in summaries], indent=1).encode()
    )
    return Comparison(folder, summaries)
