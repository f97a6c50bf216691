"""Every method in the folder: it runs, repeats, resumes and costs what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sheaf import plugins, runs
from sheaf.config import Experiment
from sheaf.record import Result
from sheaf.types import CLOUD

METHODS = list(plugins.describe("methods"))


@pytest.mark.parametrize("name", METHODS)
def test_every_edge_is_measured_and_ends_with_a_model(name: str, quick: Experiment, tmp_path: Path) -> None:
    result = runs.run(quick.with_method(name), out=tmp_path / "run")
    for edge in ("edge-1", "edge-2"):
        final = result.final(edge)
        assert final is not None
        assert final.accuracy > 0.5, "twelve epochs on five classes of digits teach more than chance"
        assert (tmp_path / "run" / result.weights[edge]).exists()
    assert Result.read(tmp_path / "run") == result


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_bits(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = quick.with_method(name)
    first, second = (runs.run(experiment, out=tmp_path / folder) for folder in ("a", "b"))
    other = runs.run(replace(experiment, seed=1), out=tmp_path / "c")
    assert first.rows == second.rows
    for file in first.weights.values():
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
    assert other.rows != first.rows


@pytest.mark.parametrize("name", METHODS)
def test_resumed_from_any_call_ends_with_the_same_bits(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = quick.with_method(name)
    whole = runs.run(experiment, out=tmp_path / "whole")
    journal = (tmp_path / "whole" / "journal" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for calls in range(1, len(journal) - 1, 3):
        stopped = tmp_path / f"stopped-{calls}"
        with pytest.raises(UnpluggedError):
            runs.run(experiment, out=stopped, watch=PullsThePlug(stopped, calls))
        resumed = runs.resume(stopped)
        assert resumed.rows == whole.rows
        for file in whole.weights.values():
            assert (stopped / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_the_dry_run_foretells_the_cost(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = quick.with_method(name)
    foretold = runs.rehearse(runs.prepare(experiment)).sites
    spent = runs.run(experiment, out=tmp_path / "run").cost
    for site, cost in spent.items():
        assert foretold[site].train_macs == cost.train_macs
        assert foretold[site].bytes_received == pytest.approx(cost.bytes_received, rel=0.05, abs=600)
        # what differs is the digits of losses and seconds in the headers
        assert foretold[site].bytes_sent == pytest.approx(cost.bytes_sent, rel=0.05, abs=600)


@pytest.mark.parametrize("name", METHODS)
def test_the_budget_is_kept(name: str, quick: Experiment, tmp_path: Path) -> None:
    method = quick.with_method(name).method
    given = quick.method.budget
    assert method.budget.edge_epochs + method.budget.cloud_epochs <= given.edge_epochs + given.cloud_epochs
    result = runs.run(quick.with_method(name), out=tmp_path / "run")
    macs = runs.prepare(quick).edges(tmp_path)[0].training_macs(given.recipe) / given.recipe.epochs
    for site in result.split:
        each = macs * sum(result.split[site]) / sum(result.split["edge-1"])
        assert result.cost[site].train_macs == pytest.approx(method.budget.edge_epochs * each)
    if method.budget.cloud_epochs == 0:
        assert result.cost[CLOUD].train_macs == 0


class UnpluggedError(Exception):
    """Stands for the end of the process."""


class PullsThePlug(runs.Quiet):
    """Stops a run as soon as its journal has so many lines."""

    def __init__(self, folder: Path, lines: int) -> None:
        self._journal = folder / "journal" / "journal.jsonl"
        self._lines = lines

    def began(self, kind: str, sites: int) -> None:
        if len(self._journal.read_bytes().splitlines()) >= self._lines:
            raise UnpluggedError


def test_ecavg_has_the_rows_of_the_paper(quick: Experiment, tmp_path: Path) -> None:
    result = runs.run(quick, out=tmp_path / "run")
    stages = {
        site: [row.stage for row in result.rows if row.site == site] for site in ("edge-1", "edge-2", CLOUD)
    }
    assert stages["edge-1"] == stages["edge-2"] == ["before update", "after update", "after retraining"]
    assert stages[CLOUD] == ["average", "averaged weights", "initial weights"]


def test_the_reference_is_not_counted(quick: Experiment, tmp_path: Path) -> None:
    method = replace(quick.method, reference=False)
    without = runs.run(replace(quick, method=method), out=tmp_path / "without")
    with_reference = runs.run(quick, out=tmp_path / "with")
    assert without.cost[CLOUD].train_macs == with_reference.cost[CLOUD].train_macs
    assert [row for row in with_reference.rows if row.stage != "initial weights"] == without.rows


def test_several_rounds_average_the_retrained_models(quick: Experiment, tmp_path: Path) -> None:
    twice = replace(quick, method=replace(quick.method, rounds=2))
    result = runs.run(twice, out=tmp_path / "run")
    assert [row.round for row in result.rows if row.stage == "average"] == [1, 2]
    lines = (tmp_path / "run" / "journal" / "journal.jsonl").read_text().splitlines()[1:]
    trained = [
        json.loads(line[9:]) for line in lines if '"kind":"train"' in line and '"site":"edge-1"' in line
    ]
    # pretrain and the first retrain go up to be averaged, the last retrain stays where it is
    assert [entry["blob"] is not None for entry in trained] == [True, True, False]
