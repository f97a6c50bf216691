"""ECAvg with remedies: without any it equals ECAvg, and each has its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe, Ridge
from sheaf.core.settings import make_plugin
from sheaf.core.task import Absence, Task, Update
from sheaf.core.types import CLOUD
from sheaf.experiments import run as runs
from sheaf.experiments.config import Experiment
from sheaf.experiments.setup import prepare
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.merges.rules.aligned import Aligned
from sheaf.merges.rules.mean import Mean
from sheaf.methods._training_budget import TrainingBudget
from sheaf.methods.ecavg import ECAvg
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Result

STEP = Recipe(epochs=2, batch_size=32)
PLAIN = ECAvgPlus(
    pretrain=STEP, finetune=STEP, retrain=STEP, restat=False, refit="none", mixtures=(), rounds=2
)


def test_without_remedies_it_equals_ecavg_bit_for_bit(quick: Experiment, tmp_path: Path) -> None:
    faithful = ECAvg(pretrain=STEP, finetune=STEP, retrain=STEP, rounds=2, reference=False)
    one = runs.run(replace(quick, method=faithful), out=tmp_path / "ecavg")
    other = runs.run(replace(quick, method=PLAIN), out=tmp_path / "plus")
    assert one.rows == other.rows
    for file in one.weights.values():
        assert (tmp_path / "ecavg" / file).read_bytes() == (tmp_path / "plus" / file).read_bytes()


def test_alignment_improves_the_average_of_separate_starts(quick: Experiment, tmp_path: Path) -> None:
    alike = replace(
        quick,
        partition=replace(quick.partition, edges=[list(range(10))] * 2),
        model=replace(quick.model, options={"hidden": 12}),
    )
    averages = {}
    for merge in (Mean(), Aligned()):
        pretrain = Recipe(epochs=20, batch_size=32, lr=0.01)
        method = replace(PLAIN, pretrain=pretrain, rounds=1, merge=merge, own_start=True)
        result = runs.run(replace(alike, method=method), out=tmp_path / type(merge).__name__)
        averages[type(merge)] = next(row.accuracy_all for row in result.rows if row.stage == "average")
    assert averages[Aligned] > averages[Mean] + 0.1


def test_separate_starts_and_given_weights_are_refused(quick: Experiment, tmp_path: Path) -> None:
    trained = runs.run(quick, out=tmp_path / "trained").weights[CLOUD]
    model = replace(quick.model, weights=str(tmp_path / "trained" / trained))
    method = replace(PLAIN, own_start=True)
    with pytest.raises(SettingError, match=r"method\.own_start .* model\.weights"):
        runs.run(replace(quick, model=model, method=method), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("remedy", "row"),
    [({"restat": True}, "new statistics"), ({"refit": Ridge()}, "refitted"), ({"refit": STEP}, "refitted")],
    ids=["restat", "ridge", "refit"],
)
def test_each_remedy_has_its_row(
    remedy: dict[str, object], row: str, quick: Experiment, tmp_path: Path
) -> None:
    method = replace(PLAIN, **remedy)  # type: ignore[arg-type]
    result = runs.run(replace(quick, method=method), out=tmp_path / "run")
    assert [found.site for found in result.rows if found.stage == row] == [CLOUD, CLOUD]


def test_a_guarded_edge_that_misses_a_call_chooses_from_the_rest(quick: Experiment, tmp_path: Path) -> None:
    """In each run it misses another call of the round: remember, adopt, train or choose."""

    class Away(LocalFleet):
        def run(
            self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
        ) -> Iterator[Update | Absence]:
            there = {site: task for site, task in tasks.items() if (site, task.call) != ("edge-1", missed)}
            yield from (Absence(site, "away") for site in tasks if site not in there)
            yield from super().run(there, call)

    experiment = replace(
        quick,
        method=replace(PLAIN, rounds=1, mixtures=(0.5, 1.0)),
        fleet=replace(quick.fleet, quorum=0.5),
    )
    prepared = prepare(experiment)
    without, missed, last = [], 0, False
    while not last:
        missed += 1
        result = runs.start(
            prepared,
            tmp_path / str(missed),
            {},
            NullObserver(),
            lambda prepared, folder, observer: Away(prepared.edges(folder / "sites"), observer.step),
        )
        assert {(refusal.site, refusal.why) for refusal in result.refused} <= {("edge-1", "away")}
        rows = {row.site: row for row in result.rows if row.stage == "after retraining"}
        assert all(choice.had is not None for choice in rows["edge-2"].choices)
        if last := "edge-1" not in rows:
            continue
        for choice in rows["edge-1"].choices:
            if choice.had is None:
                without.append(missed)
                assert (choice.mixture, choice.chosen) == (1.0, choice.got)
    assert len(without) == 2, "it missed one of the two calls in which edges remember their model"


def test_a_guarded_edge_never_loses_held_out_accuracy(quick: Experiment, tmp_path: Path) -> None:
    method = replace(PLAIN, mixtures=(0.5, 1.0))
    result = runs.run(replace(quick, method=method), out=tmp_path / "run")
    assert Result.read(tmp_path / "run") == result
    before = {(r.site, r.round): r for r in result.rows if r.stage == "before update"}
    after = [row for row in result.rows if row.stage == "after retraining"]
    assert len(after) == 4
    for row in after:
        had = before[row.site, row.round]
        forgotten, kept = row.choices
        assert kept.had == pytest.approx(had.held_out)
        assert kept.got == pytest.approx(forgotten.chosen)
        assert kept.chosen == pytest.approx(row.held_out)
        assert kept.mixture in (0, 1), "the old model, or the first choice"
        assert row.held_out >= had.held_out
    second = before["edge-1", 2]
    assert second.confusion == after[0].confusion, "the second round starts from the choice"


def test_the_guard_costs_an_epoch() -> None:
    budget = TrainingBudget(recipe=STEP, edge_epochs=10, cloud_epochs=5)
    method = ECAvgPlus.within(budget)
    assert (method.pretrain.epochs, method.finetune.epochs, method.retrain.epochs) == (3, 5, 6)
    assert tuple(each.average_last for each in (method.pretrain, method.finetune, method.retrain)) == (
        0,
        0.25,
        0.25,
    )
    assert method.mixtures
    least = ECAvgPlus.within(replace(budget, edge_epochs=2))
    assert (least.pretrain.epochs, least.retrain.epochs, least.mixtures) == (1, 1, ())


def test_distillation_fine_tunes_without_labels(quick: Experiment, tmp_path: Path) -> None:
    """The mean prediction of two edges with all classes teaches a model that starts from nothing."""
    everywhere = replace(quick.partition, edges=[list(range(10))] * 2)
    long = replace(STEP, epochs=15)
    method = replace(PLAIN, pretrain=long, finetune=replace(long, loss="distillation"), rounds=1)
    faithful = ECAvg(pretrain=long, finetune=method.finetune, retrain=STEP)
    result = runs.run(replace(quick, partition=everywhere, method=faithful), out=tmp_path / "run")
    taught = next(row.accuracy for row in result.rows if row.stage == "initial weights")
    assert taught > 0.8, "the labels of the pool are numbers of its examples, which teach nothing"
    network = prepare(quick).network.macs()
    pool = sum(sum(counts) for counts in result.split.values())
    assert result.cost[CLOUD].train_macs == pool * (15 * network.train + 2 * network.forward)
    again = runs.run(replace(quick, partition=everywhere, method=faithful), out=tmp_path / "again")
    assert again.rows == result.rows


@pytest.mark.parametrize("key", ["pretrain", "retrain"])
def test_an_edge_cannot_distil(key: str) -> None:
    with pytest.raises(SettingError, match=f"{key}.loss = 'distillation' has no teacher"):
        make_plugin("methods", {"name": "ecavg", key: {"loss": "distillation"}}, "method")
