"""Every method in the folder: it runs, repeats, resumes and costs what it says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from support import lose

from sheaf.core import registry
from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe, Share
from sheaf.core.task import Task, Update
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import prepare
from sheaf.merges.rules.fisher import Fisher
from sheaf.merges.rules.regmean import Regmean
from sheaf.methods.decoupled import Decoupled
from sheaf.methods.ecavg import ECAvg
from sheaf.methods.fedavg import FedAvg
from sheaf.methods.heterofl import HeteroFL
from sheaf.models.build import ModelSettings
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Result
from sheaf.submodels.schemes.rolling import Rolling

METHODS = list(registry.describe("methods"))
WHOLE = ["central", "ecavg", "ecavg_plus", "fedavg", "fedrolex", "heterofl", "local"]
"""Those whose edges hold the whole model where ``fleet.widths`` says nothing."""

STEP = Recipe(epochs=1, batch_size=32)
CUT = {
    "decoupled with every step": Decoupled(
        train=replace(STEP, epochs=6),
        negatives="pooled",
        share=Share(fraction=0.2),
        restat=True,
        refit=STEP,
        finetune=STEP,
        retrain=STEP,
        rounds=2,
    ),
    "decoupled with outliers": Decoupled(train=replace(STEP, epochs=12), negatives="outliers", outliers=0.3),
    "heterofl of unequal edges": HeteroFL(rounds=3, local=STEP),
    "a window that moves": HeteroFL(rounds=3, local=STEP, cut=Rolling()),
}
"""Further settings, on a network with batch norm and with edges of unequal strength."""

WEIGHED = {
    "ecavg by gram matrices": ECAvg(pretrain=STEP, finetune=STEP, retrain=STEP, rounds=2, merge=Regmean()),
    "fedavg by fisher information": FedAvg(rounds=2, local=STEP, merge=Fisher(examples=20)),
}
"""Merges that ask edges for a statistic, on the same."""


def made(name: str, quick: Experiment) -> Experiment:
    """The method under the quick experiment's budget, or one of ``CUT`` or ``WEIGHED``."""
    if name not in CUT | WEIGHED:
        return quick.with_method(name)
    fleet = replace(quick.fleet, widths={"edge-2": 0.5})
    model = ModelSettings(name="toys:DigitsCNN")
    return replace(quick, method=(CUT | WEIGHED)[name], fleet=fleet, model=model)


def cut_of(path: Path) -> Cut | None:
    """What the site of a weights file holds of the model, as the file says it."""
    with safe_open(path, "pt") as file:
        header = file.metadata().get("cut")
    return Cut.of(json.loads(header)) if header else None


@pytest.mark.parametrize("name", [*METHODS, "decoupled with every step", "decoupled with outliers"])
def test_every_edge_is_measured_and_ends_with_a_model(name: str, quick: Experiment, tmp_path: Path) -> None:
    result = runs.run(made(name, quick), out=tmp_path / "run")
    for edge in ("edge-1", "edge-2"):
        final = result.final(edge)
        assert final is not None
        assert final.accuracy > 0.5, "twelve epochs on five classes of digits teach more than chance"
        assert (tmp_path / "run" / result.weights[edge]).exists()
    assert Result.read(tmp_path / "run") == result


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", METHODS)
def test_trained_in_stacks_it_comes_to_the_same(
    name: str, momentum: float, quick: Experiment, tmp_path: Path
) -> None:
    """To 1e-4 of each parameter's norm, as floating-point sums run in another order."""
    recipe = Recipe(epochs=1, batch_size=32, optimizer="sgd", lr=0.05, momentum=momentum)
    budget = replace(quick, method=ECAvg(pretrain=recipe, finetune=recipe, retrain=recipe))
    experiment = budget.with_method(name)
    ended = {}
    for together in ("stacked", "never"):
        fleet = replace(experiment.fleet, together=together)
        result = runs.run(replace(experiment, fleet=fleet), out=tmp_path / together)
        ended[together] = {
            site: load_file(tmp_path / together / file) for site, file in result.weights.items()
        }
    assert ended["stacked"].keys() == ended["never"].keys()
    for site, params in ended["never"].items():
        for key, value in params.items():
            assert (ended["stacked"][site][key] - value).norm() <= 1e-4 * value.norm(), (site, key)


@pytest.mark.parametrize("name", [*METHODS, "decoupled with every step", "decoupled with outliers"])
def test_same_seed_same_bits(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = made(name, quick)
    first, second = (runs.run(experiment, out=tmp_path / folder) for folder in ("a", "b"))
    other = runs.run(replace(experiment, seed=1), out=tmp_path / "c")
    assert first.rows == second.rows
    for file in first.weights.values():
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
    assert other.rows != first.rows


@pytest.mark.parametrize("name", [*METHODS, *WEIGHED, "decoupled with every step", "a window that moves"])
def test_unplugged_after_any_answer_it_ends_with_the_same_bits(
    name: str, quick: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = made(name, quick)
    whole = runs.run(experiment, out=tmp_path / "whole")
    journal = (tmp_path / "whole" / "journal" / "journal.jsonl").read_bytes().splitlines()
    for answers in range(1, len(journal) - 1, max(3, len(journal) // 8)):
        stopped = tmp_path / f"stopped-{answers}"
        with monkeypatch.context() as patch:
            patch.setattr("sheaf.runtime.journal.TOGETHER", 1000.0)  # lost is what nobody waits for
            patch.setattr(Journal, "record", settling_at(answers // 2))
            patch.setattr(Journal, "__exit__", lose)
            with pytest.raises(UnpluggedError):
                runs.run(experiment, out=stopped, observer=PullsThePlug(answers))
        resumed = runs.resume(stopped)
        assert resumed.rows == whole.rows
        for file in whole.weights.values():
            assert (stopped / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("name", [*METHODS, *CUT, *WEIGHED])
def test_the_dry_run_foretells_the_cost(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = made(name, quick)
    foretold = runs.estimate_cost(prepare(experiment)).sites
    spent = runs.run(experiment, out=tmp_path / "run").cost
    for site, cost in spent.items():
        assert foretold[site].train_macs == cost.train_macs
        assert foretold[site].bytes_received == pytest.approx(cost.bytes_received, rel=0.05, abs=600)
        # what differs is the digits of losses and seconds in the headers
        assert foretold[site].bytes_sent == pytest.approx(cost.bytes_sent, rel=0.05, abs=600)


@pytest.mark.parametrize("name", METHODS)
def test_the_budget_is_kept(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = quick.with_method(name)
    given, kept = quick.method.budget, experiment.method.budget
    assert kept.edge_epochs + kept.cloud_epochs <= given.edge_epochs + given.cloud_epochs
    result = runs.run(experiment, out=tmp_path / "run")
    network = prepare(experiment).network
    for site in result.split:
        cut = cut_of(tmp_path / "run" / result.weights[site])
        each = network.macs(cut).train
        if name in WHOLE:
            assert cut in (None, Cut())
            assert each == network.macs().train
        epoch = sum(result.split[site]) * each
        trained = kept.edge_epochs * epoch
        if name == "ecavg_plus":  # an edge's choice and the cloud's refit are work too
            assert trained < result.cost[site].train_macs < given.edge_epochs * epoch
        else:
            assert result.cost[site].train_macs == trained
    if kept.cloud_epochs == 0:
        assert result.cost[CLOUD].train_macs == 0
    else:
        pooled = sum(sum(counts) for counts in result.split.values())
        trained = kept.cloud_epochs * pooled * network.macs().train
        if name == "ecavg_plus":
            assert trained < result.cost[CLOUD].train_macs < 1.5 * trained
        else:
            assert result.cost[CLOUD].train_macs == trained


@pytest.mark.parametrize("name", ["decoupled", *CUT])
def test_edges_hold_what_their_files_say(name: str, quick: Experiment, tmp_path: Path) -> None:
    experiment = made(name, quick)
    result = runs.run(experiment, out=tmp_path / "run")
    prepared = prepare(experiment)
    for site in result.split:
        cut = cut_of(tmp_path / "run" / result.weights[site])
        with safe_open(tmp_path / "run" / result.weights[site], "pt") as file:
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        module = prepared.network.of(cut)
        module.load_state_dict(held)
        assert result.cost[site].parameters == sum(value.numel() for value in held.values())
        assert result.cost[site].macs_per_example == prepared.network.macs(cut).forward
    assert cut_of(tmp_path / "run" / result.weights[CLOUD]) is None


class UnpluggedError(Exception):
    """Stands for the end of the process."""


class PullsThePlug(NullObserver):
    """Stops a run after so many answers."""

    def __init__(self, answers: int) -> None:
        self._left = answers

    def answered(self, site: str) -> None:
        self._left -= 1
        if not self._left:
            raise UnpluggedError


def settling_at(answer: int) -> Callable[[Journal, Task, Update], Update]:
    """Recording, where the second is over in which answers are synced together at that answer."""
    record, count = Journal.record, itertools.count(1)

    def recorded(journal: Journal, task: Task, update: Update) -> Update:
        kept = record(journal, task, update)
        if next(count) == answer:
            journal.settle()
        return kept

    return recorded


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
