"""Baselines beside a run: the methods that it is compared with, each as a run in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sheaf.core.types import Params
from sheaf.experiments import run_folder
from sheaf.experiments.setup import ExperimentSetup
from sheaf.models.checkpoints import load_state
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.result import Result, Row

BASELINE_STAGES = ("alone", "central")
"""The stages at which ``local`` and ``central`` measure their final models."""


def run_baselines(
    setup: ExperimentSetup,
    start: Params,
    folder: Path,
    observer: Observer,
    execute: Callable[[ExperimentSetup, Path, Observer], Result],
) -> Iterator[Row]:
    """Run each baseline in ``folder/baselines/NAME`` and yield its final models' measurements as references.

    The results are those of ``sheaf run`` with that method, bit for bit.

    Args:
        setup: of the run.
        start: the parameters that every baseline starts from.
        folder: of the run.
        observer: receives the progress.
        execute: runs an experiment in a folder.
    """
    for name in setup.experiment.baselines:
        experiment = replace(setup.experiment.with_method(name), baselines=())
        own = folder / "baselines" / name
        if experiment.method == setup.experiment.method:
            continue
        if (own / "result.json").exists():
            result = Result.read(own)
        else:
            load_state(setup.network.model, start)
            own.mkdir(parents=True, exist_ok=True)
            run_folder.write_command(own, run_folder.read_command(folder), experiment.toml())
            result = execute(replace(setup, experiment=experiment, notes=()), own, _Prefixed(observer, name))
        for row in result.rows:
            if row.stage in BASELINE_STAGES:
                yield replace(row, reference=True)


class _Prefixed(NullObserver):
    """Forwards the progress of a baseline under site names such as ``local/edge-1``."""

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer = observer
        self._name = name

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self._observer.began(kind, [f"{self._name}/{site}" for site in sites])

    def step(self, site: str, done: int, steps: int, loss: float, examples: int) -> None:
        self._observer.step(f"{self._name}/{site}", done, steps, loss, examples)

    def answered(self, site: str) -> None:
        self._observer.answered(f"{self._name}/{site}")
