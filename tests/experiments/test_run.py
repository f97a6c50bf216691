"""A run: its folder, resuming it, and its effects on the process."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support import one_line

from sheaf.core.dataset import Samples
from sheaf.core.errors import PartitionError, RunFolderError
from sheaf.experiments import run as runs
from sheaf.experiments import run_folder
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.methods.fedavg import FedAvg
from sheaf.runtime.observer import NullObserver, Observer
from sheaf.runtime.worker import Worker


@pytest.mark.parametrize("already", [False, True])
def test_existing_objects_are_frozen_only_during_a_run(
    already: bool, quick: Experiment, tmp_path: Path
) -> None:
    """Objects that the caller has frozen stay frozen."""
    meanwhile: list[int] = []

    class Watching(NullObserver):
        def began(self, kind: str, sites: Sequence[str]) -> None:
            meanwhile.append(gc.get_freeze_count())

    gc.unfreeze()  # what the session has frozen
    try:
        if already:
            gc.freeze()
        runs.run(quick, out=tmp_path / "run", observer=Watching())
        assert min(meanwhile) > 1000
        assert (gc.get_freeze_count() > 0) == already
    finally:
        gc.freeze()


@pytest.mark.parametrize("method", ["ecavg", "fedavg", "decoupled"])
def test_a_run_leaves_no_data_in_reference_cycles(method: str, tmp_path: Path) -> None:
    """Frozen objects are not collected, so a comparison of many runs would keep the data of each."""
    changes = ["data.limit=100", f"method={method}", "method.share={fraction=0.5}"][
        : 2 if method == "fedavg" else 3
    ]
    experiment = load_experiment("ecavg-digits", changes)
    alive: list[list[object]] = []
    gc.collect()
    gc.disable()
    try:
        for seed in (0, 1):
            runs.run(replace(experiment, seed=seed), out=tmp_path / str(seed))
            alive.append([each for each in gc.get_objects() if type(each) in (Worker, Samples)])
    finally:
        gc.enable()
    assert not any(type(each) is Worker for each in alive[1])
    assert len(alive[1]) == len(alive[0])  # the dataset, which is cached


@pytest.mark.parametrize("method", ["fedavg", "local"])
def test_sites_with_equal_models_have_one_file(method: str, tmp_path: Path) -> None:
    changes = ["data.limit=200", "partition.edges=3", f"method={{name='{method}'}}"]
    result = runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "run")
    files = {site: tmp_path / "run" / file for site, file in result.weights.items()}
    models = {site: safetensors.torch.load_file(file) for site, file in files.items()}
    edges = [site for site in files if site != "cloud"]
    assert len(edges) == 3
    assert all(file.is_file() for file in files.values())
    assert len({files[site].stat().st_ino for site in edges}) == (1 if method == "fedavg" else 3)
    if method == "fedavg":
        assert all(torch.equal(value, models["cloud"][name]) for name, value in models["edge-1"].items())


class CrashError(Exception):
    """Stands for a crash of the process."""


class CrashAt(NullObserver):
    """Stops a run at one of its calls."""

    def __init__(self, call: int) -> None:
        self.left = call

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self.left -= 1
        if not self.left:
            raise CrashError


def test_a_stopped_run_resumes_and_a_finished_one_is_read(quick: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(CrashError):
        runs.run(quick, out=folder, observer=CrashAt(3))
    assert not (folder / "result.json").exists()
    resumed = runs.resume(folder)
    assert resumed.rows == runs.run(quick, out=tmp_path / "whole").rows
    assert runs.resume(folder) == resumed
    assert not list((folder / "journal").glob("*.safetensors")), "the journal's tensors are removed"
    assert not (folder / "sites").exists()


def test_baselines_are_runs_of_their_own_and_alter_nothing(quick: Experiment, tmp_path: Path) -> None:
    plain, names = runs.run(quick, out=tmp_path / "plain"), ("local", "central")
    with pytest.raises(CrashError):
        runs.run(replace(quick, baselines=names), out=tmp_path / "run", observer=CrashAt(17))
    assert (tmp_path / "run" / "baselines" / "local" / "result.json").exists(), "the crash came too early"
    result = runs.resume(tmp_path / "run")
    alone = runs.run(quick.with_method("local"), out=tmp_path / "local")
    central = runs.run(quick.with_method("central"), out=tmp_path / "central")
    own = [row for row in result.rows if row.stage not in ("alone", "central")]
    assert own == plain.rows
    expected = [*alone.rows, central.rows[0]]
    assert result.rows[len(own) :] == [replace(row, reference=True) for row in expected]
    assert {site: cost.train_macs for site, cost in result.cost.items()} == {
        site: cost.train_macs for site, cost in plain.cost.items()
    }
    assert {name: cost.samples_sent for name, cost in central.cost.items()} == {
        **{edge: sum(counts) for edge, counts in central.split.items()},
        "cloud": 0,
    }
    assert all(cost.samples_sent == 0 for cost in alone.cost.values())


def test_a_folder_that_is_not_empty_is_refused(quick: Experiment, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty; name another folder") as error:
        runs.run(quick, out=tmp_path / "run")
    one_line(error)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_run_that_fails_at_once_leaves_no_folder(quick: Experiment, tmp_path: Path) -> None:
    method = FedAvg(only_strong=True)
    fleet = replace(quick.fleet, widths={"edge-1": 0.5, "edge-2": 0.5})
    with pytest.raises(PartitionError, match="only_strong leaves no edge"):
        runs.run(replace(quick, method=method, fleet=fleet), out=tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        runs.resume(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_damaged_command_names_the_remedy(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "command.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"missing or damaged; .* --data") as error:
        run_folder.read_command(tmp_path)
    one_line(error)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(RunFolderError, match="in use by another run")
    with run_folder.lock(tmp_path), refused, run_folder.lock(tmp_path):
        pass


def test_a_device_that_joins_after_the_start_is_measured_on_its_classes(
    quick: Experiment, tmp_path: Path
) -> None:
    complete = prepare(quick)
    first = next(iter(complete.split))
    counts = {site: own if site == first else [0] * len(own) for site, own in complete.split.items()}

    def engine(setup: ExperimentSetup, folder: Path, observer: Observer) -> LocalFleet:
        return LocalFleet(complete.edges(folder / "sites"))

    result = runs.start(
        prepare(quick, None, counts), tmp_path / "run", {"data": None}, NullObserver(), engine
    )
    assert result.split == complete.split
    assert {row.site for row in result.on_cloud} == set(complete.split)
